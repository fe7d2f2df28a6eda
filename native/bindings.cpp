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
#include "similarity.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace onepass;

namespace {

using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Pairs = nb::ndarray<const int32_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

int size(const Ints& array) { return static_cast<int>(array.shape(0)); }

std::vector<float> copied(const Floats1& array) { return {array.data(), array.data() + array.size()}; }

Table table(const std::optional<Floats2>& array) {
    if (!array) return {};
    return {static_cast<int>(array->shape(0)),
            static_cast<int>(array->shape(1)),
            {array->data(), array->data() + array->size()}};
}

Norm make_norm(Norm::Kind kind, const Floats1& weight, const std::optional<Floats1>& bias, float eps) {
    return {kind, copied(weight), bias ? copied(*bias) : std::vector<float>(), eps};
}

using Part = std::tuple<Floats2, std::optional<Floats1>>;

Linear::Part part_of(const Part& part, size_t inputs) {
    const auto& [weight, bias] = part;
    if (weight.shape(1) != inputs || (bias && bias->shape(0) != weight.shape(0)))
        throw std::invalid_argument("the parts of a linear layer do not fit together");
    return {weight.data(), bias ? bias->data() : nullptr, static_cast<int>(weight.shape(0))};
}

std::shared_ptr<Linear> make_linear(const std::string& kernels, Format format, const std::vector<Part>& parts) {
    const auto inputs = std::get<0>(parts.at(0)).shape(1);
    std::vector<Linear::Part> sources;
    for (const Part& part : parts) sources.push_back(part_of(part, inputs));
    nb::gil_scoped_release without_gil;
    return std::make_shared<Linear>(kernels_named(kernels), format, static_cast<int>(inputs), sources);
}

std::shared_ptr<Linear> make_gated(const std::string& kernels, Format format, const Part& gate, const Part& up) {
    const auto inputs = std::get<0>(gate).shape(1);
    const Linear::Part sources[] = {part_of(gate, inputs), part_of(up, inputs)};
    if (sources[0].outputs != sources[1].outputs)
        throw std::invalid_argument("a gate must have as many outputs as what it gates");
    nb::gil_scoped_release without_gil;
    return std::make_shared<Linear>(
        Linear::gated(kernels_named(kernels), format, static_cast<int>(inputs), sources[0], sources[1]));
}

struct PyRead {
    std::shared_ptr<const Head> head;
    Ints rows;
    std::optional<Ints> positions;
    std::optional<Pairs> spans;
    std::optional<Ints> offsets, vocabulary, skip, targets;
    std::optional<Finish> finish;
};

template <class Array>
Numbers numbers(const std::optional<Array>& array) {
    return array ? Numbers{array->data(), static_cast<int>(array->size()), true} : Numbers();
}

Task task_of(const PyRead& read, const Batch& batch) {
    Task task = {};
    const Numbers vocabulary = numbers(read.vocabulary);
    task.head = vocabulary.given ? std::make_shared<const Head>(read.head->choosing(vocabulary)) : read.head;
    task.read.rows = {read.rows.data(), size(read.rows), true};
    task.read.positions = numbers(read.positions), task.read.spans = numbers(read.spans);
    task.read.offsets = numbers(read.offsets), task.read.skip = numbers(read.skip);
    task.read.targets = numbers(read.targets);
    task.read.finish = read.finish.value_or(read.head->finish());
    const int count = task.read.rows.count;
    if ((read.positions || read.spans) && task.read.offsets.count != count + 1)
        throw std::invalid_argument("a read with positions or spans needs offsets, one more than it has rows");
    if (read.skip && task.read.skip.count != count)
        throw std::invalid_argument("a read's skip needs one number per row");
    if (read.targets && read.vocabulary)
        throw std::invalid_argument("a read's targets are scored among the whole vocabulary, not among some of it");
    task.plan = task.head->plan(task.read, batch);
    return task;
}

// (cosines, sines, where each row of the batch begins in them)
using PyRotary = std::tuple<Floats2, Floats2, Ints>;

PositionTables tables_of(const std::vector<PyRotary>& rotary, const std::vector<Floats2>& distance, int rows) {
    PositionTables tables;
    for (const auto& [cosines, sines, starts] : rotary) {
        if (cosines.shape(0) != sines.shape(0) || cosines.shape(1) != sines.shape(1) || size(starts) != rows)
            throw std::invalid_argument("a rotary table needs as many sines as cosines and a start for each row");
        tables.rotary.push_back({cosines.data(), sines.data(), starts.data(), static_cast<int>(cosines.shape(0)),
                                 static_cast<int>(cosines.shape(1))});
    }
    for (const Floats2& bias : distance) {
        if (bias.shape(1) % 2 == 0) throw std::invalid_argument("a table of distances needs as many to either side");
        tables.distance.push_back({bias.data(), static_cast<int>(bias.shape(0)), static_cast<int>(bias.shape(1)) / 2});
    }
    return tables;
}

template <class T, class... Shape>
nb::ndarray<nb::numpy, T> owned(std::unique_ptr<T[]> values, Shape... shape) {
    T* data = values.release();
    nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
    return nb::ndarray<nb::numpy, T>(data, {static_cast<size_t>(shape)...}, owner);
}

nb::ndarray<nb::numpy, int32_t> owned(const std::vector<int32_t>& values) {
    std::unique_ptr<int32_t[]> copy(new int32_t[values.size()]);
    std::copy(values.begin(), values.end(), copy.get());
    return owned(std::move(copy), values.size());
}

// A list of (values [m, width], offsets [n + 1], token ids [m] or None), one per read.
nb::list run(const Encoder& encoder, const Ints& ids, const Ints& types, const Ints& offsets, const Ints& visible,
             const std::vector<PyRotary>& rotary, const std::vector<Floats2>& distance,
             const std::vector<PyRead>& reads, int cores) {
    const int tokens = size(ids), rows = size(visible);
    if (size(types) != tokens || size(offsets) != rows + 1)
        throw std::invalid_argument("a batch needs as many types as ids and one more offset than rows");
    const Batch batch = {ids.data(), types.data(), offsets.data(), visible.data(), rows, tokens};
    const PositionTables tables = tables_of(rotary, distance, rows);
    encoder.check(batch, tables);

    std::vector<Task> tasks;
    for (const PyRead& read : reads) tasks.push_back(task_of(read, batch));
    std::vector<Values> outputs;
    {
        nb::gil_scoped_release without_gil;
        outputs = encoder.run(batch, tables, std::move(tasks), cores);
    }
    nb::list result;
    for (size_t i = 0; i < reads.size(); ++i) {
        Values& output = outputs[i];
        const bool ids = reads[i].head->gives_ids() && !reads[i].targets;
        result.append(nb::make_tuple(owned(std::move(output.numbers), output.offsets.back(), output.width),
                                     owned(output.offsets), ids ? nb::cast(owned(output.ids)) : nb::none()));
    }
    return result;
}

nb::ndarray<nb::numpy, float> similarity(const std::string& kernels, const Floats2& query, const Floats2& documents,
                                         const Ints& offsets, int cores) {
    const int count = size(offsets) - 1, width = static_cast<int>(query.shape(1));
    std::unique_ptr<float[]> scores(new float[static_cast<size_t>(count)]);
    {
        nb::gil_scoped_release without_gil;
        Team team(cores);
        const Matrix vectors = {const_cast<float*>(documents.data()), width};
        max_similarity(kernels_named(kernels), query.data(), static_cast<int>(query.shape(0)), width,
                       {vectors, offsets.data(), count}, scores.get(), team);
    }
    return owned(std::move(scores), count);
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
    nb::enum_<Norm::Kind>(module, "NormKind")
        .value("layer", Norm::Kind::layer)
        .value("rms", Norm::Kind::rms)
        .value("affine", Norm::Kind::affine);
    nb::enum_<Widen>(module, "Widen").value("word", Widen::word).value("sum", Widen::sum).value("after", Widen::after);
    nb::enum_<Layer::Place>(module, "Place")
        .value("post", Layer::Place::post)
        .value("pre", Layer::Place::pre)
        .value("sandwich", Layer::Place::sandwich)
        .value("bottleneck", Layer::Place::bottleneck);
    nb::enum_<Bottleneck::Shares>(module, "Shares")
        .value("all", Bottleneck::Shares::all)
        .value("query_key", Bottleneck::Shares::query_key)
        .value("none", Bottleneck::Shares::none);
    nb::enum_<Pooling>(module, "Pooling")
        .value("first", Pooling::first)
        .value("last", Pooling::last)
        .value("last_not_pad", Pooling::last_not_pad)
        .value("mean", Pooling::mean)
        .value("sum", Pooling::sum)
        .value("max", Pooling::max)
        .value("mean_sqrt", Pooling::mean_sqrt)
        .value("weighted_mean", Pooling::weighted_mean)
        .value("tokens", Pooling::tokens)
        .value("spans", Pooling::spans)
        .value("max_by_token", Pooling::max_by_token);
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
    nb::class_<VocabularyStep>(module, "VocabularyStep").def(nb::init<std::shared_ptr<const Linear>>(), "scores"_a);
    nb::class_<L2Step>(module, "L2Step").def(nb::init<>());
    nb::class_<TruncateStep>(module, "TruncateStep").def(nb::init<int>(), "width"_a);
}

void bind_parts(nb::module_& module) {
    nb::class_<Linear>(module, "Linear")
        .def(nb::new_(&make_linear), "kernels"_a, "dtype"_a, "parts"_a)
        .def_static("gated", &make_gated, "kernels"_a, "dtype"_a, "gate"_a, "up"_a)
        .def_prop_ro("bytes", &Linear::bytes);
    nb::class_<Norm>(module, "Norm").def(nb::new_(&make_norm), "kind"_a, "weight"_a, "bias"_a.none(), "eps"_a);
    nb::class_<Positions>(module, "Positions")
        .def(nb::new_([](Positions::Rule rule, int start, const Floats2& rows) {
                 return Positions{rule, start, table(rows)};
             }),
             "rule"_a, "start"_a, "table"_a);
    nb::class_<Embedding>(module, "Embedding")
        .def(nb::new_([](const Floats2& word, float scale, int ngram, std::optional<Positions> positions,
                         const std::optional<Floats2>& types, const std::optional<Floats2>& task,
                         std::optional<Norm> norm, std::shared_ptr<const Linear> project, Widen place) {
                 return Embedding{table(word),  scale,       ngram,           std::move(positions),
                                  table(types), table(task), std::move(norm), std::move(project),
                                  place};
             }),
             "word"_a, "scale"_a, "ngram"_a, "positions"_a.none(), "types"_a.none(), "task"_a.none(), "norm"_a.none(),
             "project"_a.none(), "place"_a);
}

void bind_layers(nb::module_& module) {
    using Shared = std::shared_ptr<const Linear>;
    using SharedList = std::vector<Shared>;
    nb::class_<RelativeScores>(module, "RelativeScores")
        .def(nb::init<int, SharedList, SharedList>(), "reach"_a, "content_to_position"_a, "position_to_content"_a);
    nb::class_<SelfAttention>(module, "SelfAttention")
        .def(nb::init<Shared, Shared, std::optional<Norm>, std::optional<Norm>, std::shared_ptr<const RelativeScores>,
                      int, int, int, float, bool, int, float, int, int>(),
             "query_key_value"_a, "value"_a.none(), "query_norm"_a.none(), "key_norm"_a.none(), "relative"_a.none(),
             "heads"_a, "kv_heads"_a, "head_size"_a, "scale"_a, "causal"_a, "window"_a, "softcap"_a, "rotary"_a,
             "distance_bias"_a);
    nb::class_<Dense>(module, "Dense").def(nb::init<Shared, Shared, Activation>(), "up"_a, "down"_a, "activation"_a);
    nb::class_<Experts>(module, "Experts")
        .def(nb::new_([](Shared router, std::vector<Dense> experts, const std::optional<Floats1>& bias, int top) {
                 return Experts{std::move(router), std::move(experts), bias ? copied(*bias) : std::vector<float>(),
                                top};
             }),
             "router"_a, "experts"_a, "bias"_a.none(), "top"_a);
    nb::class_<Link>(module, "Link").def(nb::init<Dense, Norm>(), "feed_forward"_a, "norm"_a);
    nb::class_<Bottleneck>(module, "Bottleneck")
        .def(nb::init<Bottleneck::Shares, Shared, Shared, Shared, Norm, std::optional<Norm>, Norm>(), "shares"_a,
             "input_linear"_a, "shared_linear"_a.none(), "output_linear"_a, "input_norm"_a, "shared_norm"_a.none(),
             "output_norm"_a);
    nb::class_<Layer>(module, "Layer")
        .def(nb::init<Layer::Place, SelfAttention, Shared, std::vector<Link>, FeedForward, std::optional<Norm>,
                      std::optional<Norm>, Norm, std::optional<Norm>, std::optional<Bottleneck>>(),
             "place"_a, "attention"_a, "output"_a, "chain"_a, "feed_forward"_a, "norm1"_a.none(),
             "norm1_after"_a.none(), "norm2"_a, "norm2_after"_a.none(), "bottleneck"_a.none());
    nb::class_<Convolution>(module, "Convolution")
        .def(nb::init<Shared, int, Activation, Norm>(), "weight"_a, "kernel"_a, "activation"_a, "norm"_a);
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "The native engine: encoders on the CPU in C++.";
    bind_words(module);
    bind_parts(module);
    bind_steps(module);
    bind_layers(module);
    nb::class_<Head>(module, "Head")
        .def(nb::new_([](const std::string& kernels, int width, std::vector<Pooling> pool, std::vector<Step> per_token,
                         std::vector<Step> per_row, int pad_id, bool skip_prompt, std::vector<int32_t> without,
                         bool sparse, Finish finish) {
                 return std::make_shared<Head>(kernels_named(kernels), width, std::move(pool), std::move(per_token),
                                               std::move(per_row),
                                               Head::Options{pad_id, skip_prompt, std::move(without), sparse, finish});
             }),
             "kernels"_a, "width"_a, "pool"_a, "per_token"_a, "per_row"_a, "pad_id"_a, "skip_prompt"_a, "without"_a,
             "sparse"_a, "finish"_a);
    nb::class_<PyRead>(module, "Read")
        .def(nb::init<std::shared_ptr<const Head>, Ints, std::optional<Ints>, std::optional<Pairs>, std::optional<Ints>,
                      std::optional<Ints>, std::optional<Ints>, std::optional<Ints>, std::optional<Finish>>(),
             "head"_a, "rows"_a, "positions"_a.none(), "spans"_a.none(), "offsets"_a.none(), "vocabulary"_a.none(),
             "skip"_a.none(), "targets"_a.none(), "finish"_a.none());
    nb::class_<Encoder>(module, "Encoder")
        .def(nb::new_([](const std::string& kernels, int width, Embedding embedding, std::vector<Layer> layers,
                         std::optional<Convolution> convolution, std::optional<Norm> final_norm) {
                 return std::make_shared<Encoder>(kernels_named(kernels), width, std::move(embedding),
                                                  std::move(layers), std::move(convolution), std::move(final_norm));
             }),
             "kernels"_a, "width"_a, "embedding"_a, "layers"_a, "convolution"_a.none(), "final_norm"_a.none())
        .def("run", &run, "ids"_a, "types"_a, "offsets"_a, "visible"_a, "rotary"_a, "distance"_a, "reads"_a, "cores"_a);
    module.def("instruction_sets", [] {
        nb::dict result;
        for (const InstructionSet& set : instruction_sets()) result[set.kernels->name] = set.obstacle;
        return result;
    });
    module.def(
        "bfloat16_products", [](const std::string& kernels) { return kernels_named(kernels).bf16_products; },
        "kernels"_a);
    module.def("compute_threads", &compute_threads);
    module.def("max_similarity", &similarity, "kernels"_a, "query"_a, "documents"_a, "offsets"_a, "cores"_a);
}
