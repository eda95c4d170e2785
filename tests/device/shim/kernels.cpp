// The product's kernels behind one C function, for tests/device/shim/driver.py.
#include "shim.h"

#include "streamer.cu"

static const Kernel KERNELS[] = {
    KERNEL(sum_cells, SumArgs), KERNEL(round_cells, RoundArgs), KERNEL(paint, PaintArgs), KERNEL(cover, CoverArgs),
    KERNEL(view_f32, ViewArgs), KERNEL(view_f16, ViewArgs), KERNEL(thumbnail, ThumbnailArgs),
    KERNEL(turn_f32, TurnArgs), KERNEL(turn_f16, TurnArgs), KERNEL(crop_f32, CropArgs), KERNEL(crop_f16, CropArgs), {},
};

extern "C" int shim_launch(const char *name, const unsigned *grid, const unsigned *block, const void *arguments, size_t size,
                           int reversed) {
    return launch(KERNELS, name, grid, block, arguments, size, reversed != 0);
}

extern "C" size_t shim_sizeof(int which) {
    const size_t sizes[] = {sizeof(Surface), sizeof(Grid), sizeof(Region), sizeof(Source), sizeof(Crop)};
    return sizes[which];
}
