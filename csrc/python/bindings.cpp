// fastpose._C: the decoder for Python. Tensors arrive as addresses that fastpose/ops/decode.py has checked.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "../decode/decode.h"

namespace py = pybind11;
using fastpose::DecodeParams;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

DecodeParams make_params(std::uintptr_t heatmaps, std::uintptr_t flipped, std::uintptr_t flip_index,
                         std::uintptr_t center, std::uintptr_t scale, std::uintptr_t keypoints,
                         std::uintptr_t score, std::uintptr_t valid, int64_t batch, int64_t joints,
                         int32_t height, int32_t width, int dtype, bool shift, bool refine) {
    DecodeParams p{};
    p.heatmaps = pointer<const void>(heatmaps);
    p.flipped = pointer<const void>(flipped);
    p.flip_index = pointer<const int64_t>(flip_index);
    p.center = pointer<const float>(center);
    p.scale = pointer<const float>(scale);
    p.keypoints = pointer<float>(keypoints);
    p.score = pointer<float>(score);
    p.valid = pointer<bool>(valid);
    p.batch = batch;
    p.joints = joints;
    p.height = height;
    p.width = width;
    p.dtype = static_cast<fastpose::DType>(dtype);
    p.shift = shift;
    p.refine = refine;
    return p;
}

#ifdef FASTPOSE_HAS_CUDA
int decode_cuda(const DecodeParams& params, int device, std::uintptr_t stream) {
    return fastpose::decode_cuda(params, device, pointer<void>(stream));
}
#endif

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.attr("source_hash") = FASTPOSE_SOURCE_HASH;
    py::class_<DecodeParams>(m, "DecodeParams")
        .def(py::init(&make_params), py::kw_only(), py::arg("heatmaps"), py::arg("flipped"),
             py::arg("flip_index"), py::arg("center"), py::arg("scale"), py::arg("keypoints"),
             py::arg("score"), py::arg("valid"), py::arg("batch"), py::arg("joints"), py::arg("height"),
             py::arg("width"), py::arg("dtype"), py::arg("shift"), py::arg("refine"));
    const auto no_gil = py::call_guard<py::gil_scoped_release>();
    m.def("decode_cpu", &fastpose::decode_cpu, py::arg("params"), py::arg("threads"), no_gil);
#ifdef FASTPOSE_HAS_CUDA
    m.attr("has_cuda") = true;
    m.def("decode_cuda", &decode_cuda, py::arg("params"), py::arg("device"), py::arg("stream"), no_gil);
    m.def("decode_cuda_status", &fastpose::decode_cuda_status, py::arg("device"), no_gil);
    m.def("cuda_error_text", &fastpose::cuda_error_text, py::arg("code"));
#else
    m.attr("has_cuda") = false;
#endif
}
