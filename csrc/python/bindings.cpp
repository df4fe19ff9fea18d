// fastpose._C: the decoder and the assignment for Python. Tensors arrive as addresses that fastpose/ops/ has
// checked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "../assignment/assignment.h"
#include "../decode/decode.h"

namespace py = pybind11;
using fastpose::AssignParams;
using fastpose::DecodeParams;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

using StrideTuple = std::tuple<int64_t, int64_t, int64_t, int64_t>;

fastpose::Strides make_strides(const StrideTuple& strides) {
    const auto [batch, joint, row, column] = strides;
    return {batch, joint, row, column};
}

// `blur` holds the weights from the centre outwards.
void set_blur(DecodeParams& p, const std::vector<double>& blur) {
    if (blur.empty() || blur.size() > fastpose::kMaxBlurRadius + 1)
        throw py::value_error("blur: expected 1 to 32 weights, got " + std::to_string(blur.size()));
    p.blur_radius = static_cast<int32_t>(blur.size()) - 1;
    std::copy(blur.begin(), blur.end(), p.blur);
}

DecodeParams make_params(std::uintptr_t heatmaps, std::uintptr_t flipped, std::uintptr_t flip_index,
                         std::uintptr_t center, std::uintptr_t scale, std::uintptr_t keypoints,
                         std::uintptr_t score, std::uintptr_t valid, const StrideTuple& heatmap_strides,
                         const StrideTuple& flipped_strides, int64_t batch, int64_t joints, int32_t height,
                         int32_t width, int dtype, bool shift, int refine, const std::vector<double>& blur) {
    DecodeParams p{};
    p.heatmaps = pointer<const void>(heatmaps);
    p.flipped = pointer<const void>(flipped);
    p.flip_index = pointer<const int64_t>(flip_index);
    p.center = pointer<const float>(center);
    p.scale = pointer<const float>(scale);
    p.keypoints = pointer<float>(keypoints);
    p.score = pointer<float>(score);
    p.valid = pointer<bool>(valid);
    p.heatmap_strides = make_strides(heatmap_strides);
    p.flipped_strides = make_strides(flipped_strides);
    p.batch = batch;
    p.joints = joints;
    p.height = height;
    p.width = width;
    p.dtype = static_cast<fastpose::DType>(dtype);
    p.shift = shift;
    p.refine = static_cast<fastpose::Refine>(refine);
    set_blur(p, blur);
    return p;
}

AssignParams make_assign_params(std::uintptr_t cost, std::uintptr_t query,
                                const std::tuple<int64_t, int64_t, int64_t>& strides, int64_t problems,
                                int32_t queries, int32_t joints, int type) {
    AssignParams p{};
    p.cost = pointer<const void>(cost);
    p.query = pointer<int64_t>(query);
    std::tie(p.problem_stride, p.query_stride, p.joint_stride) = strides;
    p.problems = problems;
    p.queries = queries;
    p.joints = joints;
    p.type = static_cast<fastpose::CostType>(type);
    return p;
}

#ifdef FASTPOSE_HAS_CUDA
int assign_cuda(const AssignParams& params, int device, std::uintptr_t stream) {
    return fastpose::assign_cuda(params, device, pointer<void>(stream));
}

int decode_cuda(const DecodeParams& params, int device, std::uintptr_t stream) {
    return fastpose::decode_cuda(params, device, pointer<void>(stream));
}
#endif

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.attr("source_hash") = FASTPOSE_SOURCE_HASH;
    m.attr("max_cuda_columns") = fastpose::kMostCudaColumns;
    m.attr("max_blur_radius") = fastpose::kMaxBlurRadius;
    py::class_<DecodeParams>(m, "DecodeParams")
        .def(py::init(&make_params), py::kw_only(), py::arg("heatmaps"), py::arg("flipped"),
             py::arg("flip_index"), py::arg("center"), py::arg("scale"), py::arg("keypoints"),
             py::arg("score"), py::arg("valid"), py::arg("heatmap_strides"), py::arg("flipped_strides"),
             py::arg("batch"), py::arg("joints"), py::arg("height"), py::arg("width"), py::arg("dtype"),
             py::arg("shift"), py::arg("refine"), py::arg("blur"));
    py::class_<AssignParams>(m, "AssignParams")
        .def(py::init(&make_assign_params), py::kw_only(), py::arg("cost"), py::arg("query"),
             py::arg("strides"), py::arg("problems"), py::arg("queries"), py::arg("joints"), py::arg("type"));
    const auto no_gil = py::call_guard<py::gil_scoped_release>();
    m.def("assign_cpu", &fastpose::assign_cpu, py::arg("params"), py::arg("threads"), no_gil);
    m.def("decode_cpu", &fastpose::decode_cpu, py::arg("params"), py::arg("threads"), no_gil);
#ifdef FASTPOSE_HAS_CUDA
    m.attr("has_cuda") = true;
    m.def("assign_cuda", &assign_cuda, py::arg("params"), py::arg("device"), py::arg("stream"), no_gil);
    m.def("decode_cuda", &decode_cuda, py::arg("params"), py::arg("device"), py::arg("stream"), no_gil);
    m.def("decode_cuda_status", &fastpose::decode_cuda_status, py::arg("device"), no_gil);
    m.def("cuda_error_text", &fastpose::cuda_error_text, py::arg("code"));
#else
    m.attr("has_cuda") = false;
#endif
}
