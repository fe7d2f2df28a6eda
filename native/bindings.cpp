#include <nanobind/nanobind.h>

NB_MODULE(_native, module) {
    module.doc() = "The native engine: encoders on the CPU in C++.";
}
