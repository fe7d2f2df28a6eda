// What Python sees. engines/native.py is the only user.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "cores.h"
#include "cpu.h"
#include "encoder.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace onepass;

namespace {

using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

int size(const Ints& array) { return static_cast<int>(array.shape(0)); }

std::vector<float> copied(const Floats1& array) { return {array.data(), array.data() + array.size()}; }

Table table(const Floats2& array) {
    return {static_cast<int>(array.shape(0)), {array.data(), array.data() + array.size()}};
}

Norm make_norm(const Floats1& weight, const std::optional<Floats1>& bias, float eps) {
    return {copied(weight), bias ? copied(*bias) : std::vector<float>(), eps};
}

using Part = std::tuple<Floats2, std::optional<Floats1>>;

std::shared_ptr<Linear> make_linear(const std::string& kernels, Format format, const std::vector<Part>& parts) {
    std::vector<Linear::Part> sources;
    const auto inputs = std::get<0>(parts.at(0)).shape(1);
    for (const auto& [weight, bias] : parts) {
        if (weight.shape(1) != inputs || (bias && bias->shape(0) != weight.shape(0)))
            throw std::invalid_argument("the parts of a linear layer do not fit together");
        sources.push_back({weight.data(), bias ? bias->data() : nullptr, static_cast<int>(weight.shape(0))});
    }
    nb::gil_scoped_release without_gil;
    return std::make_shared<Linear>(kernels_named(kernels), format, static_cast<int>(inputs), sources);
}

struct PyRead {
    int head;
    Ints rows;
    std::optional<Ints> positions, offsets, skip;
    std::optional<Finish> finish;
};

HeadRead arguments(const PyRead& read, const Encoder& encoder) {
    if (read.head < 0 || read.head >= encoder.heads())
        throw std::invalid_argument("a read names a head that is not there");
    HeadRead result = {};
    result.head = read.head;
    result.rows = read.rows.data(), result.count = size(read.rows);
    if (read.positions) {
        if (!read.offsets || size(*read.offsets) != result.count + 1)
            throw std::invalid_argument("a read with positions needs offsets, one more than it has rows");
        result.positions = read.positions->data(), result.positions_count = size(*read.positions);
        result.offsets = read.offsets->data();
    }
    if (read.skip) {
        if (size(*read.skip) != result.count) throw std::invalid_argument("a read's skip needs one number per row");
        result.skip = read.skip->data();
    }
    result.finish = read.finish.value_or(encoder.head(read.head).finish());
    return result;
}

template <class T, class... Shape>
nb::ndarray<nb::numpy, T> owned(std::unique_ptr<T[]> values, Shape... shape) {
    T* data = values.release();
    nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
    return nb::ndarray<nb::numpy, T>(data, {static_cast<size_t>(shape)...}, owner);
}

// A list of (values [m, width], offsets [n + 1]), one per read.
nb::list run(const Encoder& encoder, const Ints& ids, const Ints& types, const Ints& offsets, const Ints& visible,
             const std::vector<PyRead>& reads, int cores) {
    const int tokens = size(ids), rows = size(visible);
    if (size(types) != tokens || size(offsets) != rows + 1)
        throw std::invalid_argument("a batch needs as many types as ids and one more offset than rows");
    const Batch batch = {ids.data(), types.data(), offsets.data(), visible.data(), rows, tokens};
    encoder.check(batch);

    std::vector<HeadRead> tasks;
    std::vector<std::unique_ptr<float[]>> values;
    std::vector<std::unique_ptr<int32_t[]>> value_offsets;
    for (const PyRead& read : reads) {
        HeadRead task = arguments(read, encoder);
        const Head& head = encoder.head(task.head);
        const std::vector<int32_t> planned = head.plan(task, batch);
        value_offsets.emplace_back(new int32_t[planned.size()]);
        std::copy(planned.begin(), planned.end(), value_offsets.back().get());
        values.emplace_back(new float[static_cast<size_t>(planned.back()) * static_cast<size_t>(head.width())]);
        task.value_offsets = value_offsets.back().get();
        task.values = values.back().get();
        tasks.push_back(task);
    }
    {
        nb::gil_scoped_release without_gil;
        encoder.run(batch, tasks, cores);
    }
    nb::list outputs;
    for (size_t i = 0; i < tasks.size(); ++i) {
        const int count = tasks[i].value_offsets[tasks[i].count];
        outputs.append(nb::make_tuple(owned(std::move(values[i]), count, encoder.head(tasks[i].head).width()),
                                      owned(std::move(value_offsets[i]), tasks[i].count + 1)));
    }
    return outputs;
}

void bind_words(nb::module_& module) {
    nb::enum_<Format>(module, "Format").value("float32", Format::float32).value("bfloat16", Format::bfloat16);
    nb::enum_<Activation>(module, "Activation")
        .value("identity", Activation::identity)
        .value("gelu", Activation::gelu)
        .value("gelu_tanh", Activation::gelu_tanh)
        .value("quick_gelu", Activation::quick_gelu)
        .value("gelu_clipped", Activation::gelu_clipped)
        .value("silu", Activation::silu)
        .value("relu", Activation::relu)
        .value("relu2", Activation::relu2)
        .value("tanh", Activation::tanh)
        .value("sigmoid", Activation::sigmoid)
        .value("relu_log1p", Activation::relu_log1p);
    nb::enum_<Positions::Rule>(module, "PositionRule")
        .value("arange", Positions::Rule::arange)
        .value("after_pad", Positions::Rule::after_pad);
    nb::enum_<Pooling>(module, "Pooling")
        .value("first", Pooling::first)
        .value("last", Pooling::last)
        .value("last_not_pad", Pooling::last_not_pad)
        .value("mean", Pooling::mean)
        .value("max", Pooling::max)
        .value("mean_sqrt", Pooling::mean_sqrt)
        .value("weighted_mean", Pooling::weighted_mean)
        .value("tokens", Pooling::tokens);
    nb::enum_<Finish>(module, "Finish")
        .value("none", Finish::none)
        .value("l2", Finish::l2)
        .value("softmax", Finish::softmax)
        .value("sigmoid", Finish::sigmoid);
}

void bind_steps(nb::module_& module) {
    nb::class_<LinearStep>(module, "LinearStep")
        .def(nb::init<std::shared_ptr<const Linear>, Activation, bool, std::shared_ptr<const Linear>>(), "linear"_a,
             "activation"_a, "residual"_a, "residual_linear"_a.none());
    nb::class_<ActivationStep>(module, "ActivationStep").def(nb::init<Activation>(), "kind"_a);
    nb::class_<L2Step>(module, "L2Step").def(nb::init<>());
    nb::class_<TruncateStep>(module, "TruncateStep").def(nb::init<int>(), "width"_a);
}

void bind_parts(nb::module_& module) {
    nb::class_<Linear>(module, "Linear").def(nb::new_(&make_linear), "kernels"_a, "dtype"_a, "parts"_a);
    nb::class_<Norm>(module, "Norm").def(nb::new_(&make_norm), "weight"_a, "bias"_a.none(), "eps"_a);
    nb::class_<Positions>(module, "Positions")
        .def(nb::new_([](Positions::Rule rule, int start, const Floats2& rows) {
                 return Positions{rule, start, table(rows)};
             }),
             "rule"_a, "start"_a, "table"_a);
    nb::class_<Embedding>(module, "Embedding")
        .def(nb::new_([](const Floats2& word, float scale, std::optional<Positions> positions,
                         const std::optional<Floats2>& types, std::optional<Norm> norm,
                         std::shared_ptr<const Linear> project) {
                 return Embedding{static_cast<int>(word.shape(1)),
                                  table(word),
                                  scale,
                                  std::move(positions),
                                  types ? table(*types) : Table(),
                                  std::move(norm),
                                  std::move(project)};
             }),
             "word"_a, "scale"_a, "positions"_a.none(), "types"_a.none(), "norm"_a.none(), "project"_a.none());
    nb::class_<LayerWeights>(module, "LayerWeights")
        .def(nb::init<std::shared_ptr<const Linear>, std::shared_ptr<const Linear>, std::shared_ptr<const Linear>,
                      std::shared_ptr<const Linear>, Norm, Norm>(),
             "query_key_value"_a, "output"_a, "up"_a, "down"_a, "norm1"_a, "norm2"_a);
    nb::class_<Layer>(module, "Layer")
        .def(nb::init<std::shared_ptr<const LayerWeights>, int, int, float, Activation>(), "weights"_a, "heads"_a,
             "head_size"_a, "scale"_a, "activation"_a);
    bind_steps(module);
    nb::class_<Head>(module, "Head")
        .def(nb::new_([](const std::string& kernels, int width, std::vector<Pooling> pool, int pad_id, bool skip_prompt,
                         std::vector<Step> per_token, std::vector<Step> per_row, Finish finish) {
                 return Head(kernels_named(kernels), width, std::move(pool), pad_id, skip_prompt, std::move(per_token),
                             std::move(per_row), finish);
             }),
             "kernels"_a, "width"_a, "pool"_a, "pad_id"_a, "skip_prompt"_a, "per_token"_a, "per_row"_a, "finish"_a);
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "The native engine: encoders on the CPU in C++.";
    bind_words(module);
    bind_parts(module);
    nb::class_<PyRead>(module, "Read")
        .def(
            nb::init<int, Ints, std::optional<Ints>, std::optional<Ints>, std::optional<Ints>, std::optional<Finish>>(),
            "head"_a, "rows"_a, "positions"_a.none(), "offsets"_a.none(), "skip"_a.none(), "finish"_a.none());
    nb::class_<Encoder>(module, "Encoder")
        .def(
            "__init__",
            [](Encoder* self, const std::string& kernels, int width, std::shared_ptr<const Embedding> embedding,
               std::vector<Layer> layers, std::vector<Head> heads) {
                new (self)
                    Encoder(kernels_named(kernels), width, std::move(embedding), std::move(layers), std::move(heads));
            },
            "kernels"_a, "width"_a, "embedding"_a, "layers"_a, "heads"_a)
        .def("run", &run, "ids"_a, "types"_a, "offsets"_a, "visible"_a, "reads"_a, "cores"_a)
        .def_prop_ro("weight_bytes", &Encoder::weight_bytes);
    module.def("instruction_sets", [] {
        nb::dict result;
        for (const InstructionSet& set : instruction_sets()) result[set.kernels->name] = set.obstacle;
        return result;
    });
    module.def(
        "bfloat16_products", [](const std::string& kernels) { return kernels_named(kernels).bf16_products; },
        "kernels"_a);
    module.def("compute_threads", &compute_threads);
}
