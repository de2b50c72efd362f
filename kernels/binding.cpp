// Python bindings. Shapes are checked in onnxcam/kernels/native.py; the GIL is released here, and
// large work is split among threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <new>

#include "kernels.h"
#include "pool.h"

namespace nb = nanobind;
using onnxcam::Pool;

template <typename T, size_t Rank>
using In = nb::ndarray<const T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
template <typename T, size_t Rank>
using Out = nb::ndarray<T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;
// float32 or float16.
template <size_t Rank>
using Numbers = nb::ndarray<nb::ro, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;

// Another thread is worth waking for so much work.
static constexpr size_t BYTES_A_THREAD = 512 << 10;
// More units than threads even out what else the machine does.
static constexpr size_t UNITS_A_THREAD = 4;

template <typename Array> static onnxcam_numbers numbers(const Array &array) {
    return {array.data(), array.dtype().bits == 16};
}

static onnxcam_axis axis(nb::tuple t) {
    return {nb::cast<double>(t[0]), nb::cast<double>(t[1]), nb::cast<ptrdiff_t>(t[2]),
            nb::cast<ptrdiff_t>(t[3])};
}

static onnxcam_maps maps(const In<float, 3> &raw, size_t height, size_t width, nb::tuple rows,
                         nb::tuple columns) {
    return {raw.data(), raw.shape(0), raw.shape(1), raw.shape(2), height, width,
            axis(rows), axis(columns)};
}

static size_t ceiling(size_t a, size_t b) { return (a + b - 1) / b; }

static size_t worth(size_t threads, size_t bytes) {
    return std::min(threads, std::max<size_t>(bytes / BYTES_A_THREAD, 1));
}

// Calls kernel(first, last) on ranges of 0..count without the GIL.
template <typename Kernel> static void split(size_t count, size_t threads, Kernel kernel) {
    bool failed;
    {
        nb::gil_scoped_release released;
        const size_t units = std::min(count, threads > 1 ? threads * UNITS_A_THREAD : 1);
        failed = Pool::run(units, threads, [&](size_t unit) {
            return kernel(count * unit / units, count * (unit + 1) / units);
        });
    }
    if (failed) throw std::bad_alloc();
}

// Sums of the channels, from weights that are known.
static void combine(const Numbers<3> &a, onnxcam_numbers weights, bool pixels, bool relu,
                    const Out<float, 3> &out, size_t threads) {
    const onnxcam_combination of = {numbers(a),  weights,    out.shape(0), out.shape(1),
                                    a.shape(1), a.shape(2), pixels,       relu};
    threads = worth(threads, a.nbytes() * (pixels ? 1 + of.targets : 1));
    // Where the images are too few for the threads, their places are split too.
    const size_t wanted = threads > 1 && of.images ? ceiling(2 * threads, of.images) : 1;
    const size_t width = std::max<size_t>(ceiling(ceiling(of.places, wanted), 16) * 16, 16);
    const size_t pieces = ceiling(of.places, width);
    split(of.images * pieces, threads, [&](size_t first, size_t last) {
        int failed = 0;
        for (size_t i = first; i < last && !failed; ++i) {
            const size_t start = i % pieces * width;
            failed = onnxcam_combine(&of, i / pieces, start, std::min(start + width, of.places),
                                     out.data());
        }
        return failed;
    });
}

NB_MODULE(_native, m) {
    m.def("combine", [](Numbers<3> a, Numbers<4> gradients, Out<float, 3> means, bool relu,
                        Out<float, 3> out, size_t threads) {
        const onnxcam_numbers rows = numbers(gradients);
        const size_t places = gradients.shape(3);
        split(means.size(), worth(threads, gradients.nbytes()), [&](size_t first, size_t last) {
            onnxcam_means(rows, means.size(), first, last, places, means.data());
            return 0;
        });
        combine(a, {means.data(), 0}, false, relu, out, threads);
    });
    m.def("combine_channels", [](Numbers<3> a, In<float, 3> weights, bool relu, Out<float, 3> out,
                                 size_t threads) {
        combine(a, {weights.data(), 0}, false, relu, out, threads);
    });
    m.def("combine_pixels", [](Numbers<3> a, Numbers<4> weights, bool relu, Out<float, 3> out,
                               size_t threads) {
        combine(a, numbers(weights), true, relu, out, threads);
    });
    m.def("upsample", [](In<float, 3> raw, nb::tuple rows, nb::tuple columns, bool normalise,
                         Out<float, 3> out, size_t threads) {
        const onnxcam_maps of = maps(raw, out.shape(1), out.shape(2), rows, columns);
        split(of.maps * of.height, worth(threads, out.nbytes()), [&](size_t first, size_t last) {
            return onnxcam_upsample(&of, normalise, first, last, out.data());
        });
    });
    m.def("upsampled_max", [](In<float, 3> raw, nb::tuple rows, nb::tuple columns) {
        const onnxcam_maps of = maps(raw, 0, 0, rows, columns);
        float peak = 0;
        split(1, 1, [&](size_t, size_t) { return onnxcam_upsampled_max(&of, 0, &peak); });
        return peak;
    });
    m.def("fuse", [](Numbers<4> guided, In<float, 3> raw, nb::tuple rows, nb::tuple columns,
                     Out<float, 4> out, size_t threads) {
        const onnxcam_maps of = maps(raw, out.shape(2), out.shape(3), rows, columns);
        const onnxcam_numbers values = numbers(guided);
        const size_t channels = out.shape(1);
        split(of.maps * of.height, worth(threads, out.nbytes()), [&](size_t first, size_t last) {
            return onnxcam_fuse(&of, values, channels, first, last, out.data());
        });
    });
    m.def("paint", [](In<uint8_t, 3> photo, In<float, 3> raw, nb::tuple rows, nb::tuple columns,
                      In<uint8_t, 2> colours, float alpha, float shade, Out<uint8_t, 3> out,
                      size_t threads) {
        const onnxcam_maps of = maps(raw, out.shape(0), out.shape(1), rows, columns);
        float peak = 0;
        split(1, 1, [&](size_t, size_t) { return onnxcam_upsampled_max(&of, 0, &peak); });
        split(of.height, worth(threads, 2 * out.nbytes()), [&](size_t first, size_t last) {
            return onnxcam_paint(&of, photo.data(), colours.data(), alpha, shade, peak, first,
                                 last, out.data());
        });
    });
    m.def("level", &onnxcam_level);
    m.def("limit_level", &onnxcam_limit_level);
}
