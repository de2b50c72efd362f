// Python bindings. Shapes are checked in onnxcam/kernels/native.py; the GIL is released here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <new>

#include "kernels.h"

namespace nb = nanobind;

template <typename T, size_t Rank>
using In = nb::ndarray<const T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
template <typename T, size_t Rank>
using Out = nb::ndarray<T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;

static onnxcam_axis axis(nb::tuple t) {
    return {nb::cast<double>(t[0]), nb::cast<double>(t[1]), nb::cast<ptrdiff_t>(t[2]),
            nb::cast<ptrdiff_t>(t[3])};
}

template <typename Kernel> static void run(Kernel kernel) {
    int failed;
    {
        nb::gil_scoped_release released;
        failed = kernel();
    }
    if (failed) throw std::bad_alloc();
}

NB_MODULE(_native, m) {
    m.def("combine", [](In<float, 3> a, In<float, 4> g, Out<float, 3> out) {
        run([&] {
            return onnxcam_combine(a.data(), g.data(), out.data(), g.shape(0), g.shape(1),
                                   g.shape(2), g.shape(3));
        });
    });
    m.def("upsample", [](In<float, 2> map, nb::tuple rows, nb::tuple columns, Out<float, 2> out) {
        onnxcam_axis r = axis(rows), c = axis(columns);
        run([&] {
            return onnxcam_upsample(map.data(), map.shape(0), map.shape(1), r, c, out.data(),
                                    out.shape(0), out.shape(1));
        });
    });
    m.def("upsampled_max", [](In<float, 2> map, nb::tuple rows, nb::tuple columns) {
        onnxcam_axis r = axis(rows), c = axis(columns);
        float peak = 0;
        run([&] {
            return onnxcam_upsampled_max(map.data(), map.shape(0), map.shape(1), r, c, &peak);
        });
        return peak;
    });
    m.def("paint", [](In<uint8_t, 3> photo, In<float, 2> map, nb::tuple rows, nb::tuple columns,
                      In<uint8_t, 2> colours, float alpha, float shade, float peak,
                      Out<uint8_t, 3> out) {
        onnxcam_axis r = axis(rows), c = axis(columns);
        run([&] {
            return onnxcam_paint(photo.data(), photo.shape(0), photo.shape(1), map.data(),
                                 map.shape(0), map.shape(1), r, c, colours.data(), alpha, shade,
                                 peak, out.data());
        });
    });
}
