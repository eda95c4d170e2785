// Masks of one plane on the CPU: the fast twin of `paint` in streamer/device/redaction.py, to the bit. See Note [Mask regions].
//
// A plane is a matrix whose rows hold `lanes` values per sample (luma 1; chroma 2; a still picture 3 or 4), with `step` luma
// pixels per sample and axis. Needs nothing but memset: built without the C library, it loads wherever the system is 64-bit x86.
#include <stdint.h>

enum Style { MOSAIC = 0, BLUR = 1, SOLID = 2 };
enum Problem { DONE = 0, BAD_ARGUMENT = 1, TOO_MANY_CELLS = 2 };
enum { MOST_LANES = 4, BLENDED = 2 };  // cells of a grid that blur knows how to blend

typedef struct {  // cells in samples of the plane; those in the picture are `columns` by `rows` from `x`, `y` on
    int32_t x, y, cell, columns, rows;
    int32_t x0, y0, x1, y1;  // the part of the grid inside the picture
    int32_t first;           // index of its first cell's means among those of all grids
} Grid;

typedef struct {
    int32_t shape;                   // 0 rectangle, 1 ellipse
    int32_t width, height, feather;  // luma pixels, the first two without the soft edge
    int32_t grid;
    int32_t left, top;       // sample where its weights begin
    int32_t x0, y0, x1, y1;  // samples: its part of the picture, soft edge included
} Region;

typedef struct {
    uint8_t *plane;
    int64_t pitch;  // bytes
    int32_t width, height, lanes, step, style, solid;  // width and height in samples
    const Grid *grids;
    const Region *regions;
    int32_t grids_count, regions_count;
    uint8_t *means;      // (cells of all grids, lanes)
    uint16_t *weights;   // (5 * width): a region's weights in a row of samples, before them those of its two rows of pixels
    uint16_t *best;      // (width): the largest weights of a row
    uint8_t *covers;     // (2 * width * lanes): a row of what regions show, one region's and that of the strongest
    int32_t *active;     // (regions_count): those of a row
} Job;

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t clamped(int32_t value, int32_t low, int32_t high) { return least(most(value, low), high); }

static inline int32_t floor_div(int32_t value, int32_t by) {
    int32_t quotient = value / by;
    return quotient * by > value ? quotient - 1 : quotient;
}

// The sums of a row's values by lane, added to `sums`.
static inline void add_row(const uint8_t *row, int32_t samples, int32_t lanes, uint64_t *sums) {
    if (lanes == 1) {
        uint32_t sum = 0;
        for (int32_t at = 0; at < samples; at++) sum += row[at];
        sums[0] += sum;
    } else if (lanes == 2) {
        uint32_t first = 0, second = 0;
        for (int32_t at = 0; at < samples; at++) first += row[2 * at], second += row[2 * at + 1];
        sums[0] += first, sums[1] += second;
    } else {
        for (int32_t lane = 0; lane < lanes; lane++) {
            uint32_t sum = 0;
            for (int32_t at = 0; at < samples; at++) sum += row[lanes * at + lane];
            sums[lane] += sum;
        }
    }
}

static void take_means(const Job *job, const Grid *grid) {
    for (int32_t row = 0; row < grid->rows; row++) {
        int32_t top = most(grid->y + row * grid->cell, grid->y0), bottom = least(grid->y + (row + 1) * grid->cell, grid->y1);
        if (row == 0) top = grid->y0;
        if (row == grid->rows - 1) bottom = grid->y1;
        for (int32_t column = 0; column < grid->columns; column++) {
            int32_t left = most(grid->x + column * grid->cell, grid->x0), right = least(grid->x + (column + 1) * grid->cell, grid->x1);
            if (column == 0) left = grid->x0;
            if (column == grid->columns - 1) right = grid->x1;
            uint64_t sums[MOST_LANES] = {0};
            uint64_t count = left < right && top < bottom ? (uint64_t)(right - left) * (uint64_t)(bottom - top) : 0;
            for (int32_t y = top; count && y < bottom; y++)
                add_row(job->plane + y * job->pitch + (int64_t)left * job->lanes, right - left, job->lanes, sums);
            uint8_t *means = job->means + (int64_t)(grid->first + row * grid->columns + column) * job->lanes;
            for (int32_t lane = 0; lane < job->lanes; lane++)
                means[lane] = count ? (uint8_t)((2 * sums[lane] + count) / (2 * count)) : 128;
        }
    }
}

// Weights 0..256 of a rectangle's pixels `begin` to `end` of one row: see `alpha` in streamer/masking.py.
static void rectangle_weights(const Region *region, int32_t down, int32_t begin, int32_t end, uint16_t *weights) {
    int32_t feather = region->feather, width = region->width, height = region->height;
    int32_t away = most(most(-down, down - height + 1), 0);
    uint16_t fall = (uint16_t)(256 * (feather + 1 - away) / (feather + 1));
    for (int32_t x = begin; x < end; x++) weights[x - begin] = fall;
    for (int32_t x = begin; x < least(end, 0); x++) {
        uint16_t across = (uint16_t)(256 * (feather + 1 + x) / (feather + 1));
        if (across < fall) weights[x - begin] = across;
    }
    for (int32_t x = most(begin, width); x < end; x++) {
        uint16_t across = (uint16_t)(256 * (feather + width - x) / (feather + 1));
        if (across < fall) weights[x - begin] = across;
    }
}

// The same of an ellipse, in float32 in the order of operations of `alpha`.
static void ellipse_weights(const Region *region, int32_t down, int32_t begin, int32_t end, uint16_t *weights) {
    int64_t feather = region->feather, width = region->width, height = region->height;
    int64_t outer_width = width + 2 * feather, outer_height = height + 2 * feather;
    float dy = (float)(2 * down + 1 - region->height);
    float inner_across = 1.0f / (float)(width * width), outer_across = 1.0f / (float)(outer_width * outer_width);
    float inner_down = dy * dy * (1.0f / (float)(height * height)), outer_down = dy * dy * (1.0f / (float)(outer_height * outer_height));
    int32_t first = 2 * begin + 1 - region->width;
    for (int32_t at = 0; at < end - begin; at++) {
        float dx = (float)(first + 2 * at);
        float inner = dx * dx * inner_across + inner_down, outer = dx * dx * outer_across + outer_down;
        float fall = feather ? 256.0f * ((1.0f - outer) / (inner - outer)) : 0.0f;
        fall = fall > 0.0f ? fall : 0.0f;
        fall = fall < 256.0f ? fall : 256.0f;
        weights[at] = (uint16_t)(int32_t)(inner <= 1.0f ? 256.0f : fall);
    }
}

// A region's weights at the samples of row `y` from `x0` to `x1`; returns where they stand.
static const uint16_t *row_weights(const Job *job, const Region *region, int32_t y) {
    int32_t step = job->step, samples = region->x1 - region->x0, pixels = samples * step;
    int32_t begin = (region->x0 - region->left) * step - region->feather, down = (y - region->top) * step - region->feather;
    for (int32_t line = 0; line < step; line++) {
        uint16_t *row = job->weights + (int64_t)line * pixels;
        if (region->shape == 0) rectangle_weights(region, down + line, begin, begin + pixels, row);
        else ellipse_weights(region, down + line, begin, begin + pixels, row);
    }
    if (step == 1) return job->weights;
    const uint16_t *upper = job->weights, *lower = job->weights + pixels;
    uint16_t *result = job->weights + 2 * (int64_t)pixels;
    for (int32_t at = 0; at < samples; at++) {
        uint16_t above = upper[2 * at] > upper[2 * at + 1] ? upper[2 * at] : upper[2 * at + 1];
        uint16_t below = lower[2 * at] > lower[2 * at + 1] ? lower[2 * at] : lower[2 * at + 1];
        result[at] = above > below ? above : below;
    }
    return result;
}

static void fill(uint8_t *row, int32_t begin, int32_t end, const uint8_t *value, int32_t lanes) {
    if (lanes == 1) {
        for (int32_t at = begin; at < end; at++) row[at] = value[0];
    } else if (lanes == 2) {
        for (int32_t at = begin; at < end; at++) row[2 * at] = value[0], row[2 * at + 1] = value[1];
    } else {
        for (int32_t at = begin; at < end; at++)
            for (int32_t lane = 0; lane < lanes; lane++) row[lanes * at + lane] = value[lane];
    }
}

// The part of the second of two cells at a sample, counted from the first one's start.
static inline float share(int32_t at, int32_t cell) {
    float part = ((float)at + (float)(0.5 - 0.5 * cell)) / (float)cell;
    return part < 0.0f ? 0.0f : part > 1.0f ? 1.0f : part;
}

static inline uint8_t between(uint8_t first, uint8_t second, float part) {
    return (uint8_t)(int32_t)(part * ((float)second - (float)first) + ((float)first + 0.5f));
}

// What a region shows in row `y`, from its `x0` on.
static void row_cover(const Job *job, const Region *region, int32_t y, uint8_t *row) {
    int32_t lanes = job->lanes, samples = region->x1 - region->x0;
    if (job->style == SOLID) {
        uint8_t value[MOST_LANES];
        for (int32_t lane = 0; lane < lanes; lane++) value[lane] = (uint8_t)job->solid;
        fill(row, 0, samples, value, lanes);
        return;
    }
    const Grid *grid = job->grids + region->grid;
    const uint8_t *means = job->means + (int64_t)grid->first * lanes;
    if (job->style == BLUR && grid->rows == 2) {
        uint8_t value[MOST_LANES];
        float part = share(y - grid->y, grid->cell);
        for (int32_t lane = 0; lane < lanes; lane++) value[lane] = between(means[lane], means[lanes + lane], part);
        fill(row, 0, samples, value, lanes);
        return;
    }
    if (job->style == BLUR && grid->columns == 2) {
        int32_t first = region->x0 - grid->x;
        for (int32_t lane = 0; lane < lanes; lane++) {
            uint8_t low = means[lane], high = means[lanes + lane];
            for (int32_t at = 0; at < samples; at++) row[lanes * at + lane] = between(low, high, share(first + at, grid->cell));
        }
        return;
    }
    means += (int64_t)clamped(floor_div(y - grid->y, grid->cell), 0, grid->rows - 1) * grid->columns * lanes;
    for (int32_t column = 0; column < grid->columns; column++) {
        int32_t begin = column ? grid->x + column * grid->cell - region->x0 : 0;
        int32_t end = column < grid->columns - 1 ? grid->x + (column + 1) * grid->cell - region->x0 : samples;
        fill(row, clamped(begin, 0, samples), clamped(end, 0, samples), means + (int64_t)column * lanes, lanes);
    }
}

static inline uint8_t mixed(uint8_t before, uint8_t cover, uint16_t weight) {
    return (uint8_t)((uint16_t)(before * (uint16_t)(256 - weight) + cover * weight + 128) >> 8);
}

static void blend(uint8_t *target, const uint8_t *cover, const uint16_t *weights, int32_t samples, int32_t lanes) {
    if (lanes == 1) {
        for (int32_t at = 0; at < samples; at++) target[at] = mixed(target[at], cover[at], weights[at]);
    } else if (lanes == 2) {
        for (int32_t at = 0; at < samples; at++) {
            target[2 * at] = mixed(target[2 * at], cover[2 * at], weights[at]);
            target[2 * at + 1] = mixed(target[2 * at + 1], cover[2 * at + 1], weights[at]);
        }
    } else {
        for (int32_t at = 0; at < samples; at++)
            for (int32_t lane = 0; lane < lanes; lane++)
                target[lanes * at + lane] = mixed(target[lanes * at + lane], cover[lanes * at + lane], weights[at]);
    }
}

// Regions of a row that meet, `count` of them in the order of the layout: each sample goes to the one of the largest weight.
static void paint_together(const Job *job, uint8_t *row, int32_t y, const int32_t *which, int32_t count, int32_t x0, int32_t x1) {
    int32_t lanes = job->lanes;
    uint8_t *cover = job->covers, *shown = job->covers + (int64_t)job->width * lanes;
    for (int32_t x = x0; x < x1; x++) job->best[x] = 0;
    for (int32_t index = 0; index < count; index++) {
        const Region *region = job->regions + which[index];
        const uint16_t *weights = row_weights(job, region, y);
        row_cover(job, region, y, cover);
        uint16_t *best = job->best + region->x0;
        uint8_t *strongest = shown + (int64_t)region->x0 * lanes;
        for (int32_t at = 0; at < region->x1 - region->x0; at++) {
            if (weights[at] <= best[at]) continue;
            best[at] = weights[at];
            for (int32_t lane = 0; lane < lanes; lane++) strongest[lanes * at + lane] = cover[lanes * at + lane];
        }
    }
    for (int32_t x = x0; x < x1; x++)  // what no region covers is mixed with itself
        if (job->best[x] == 0)
            for (int32_t lane = 0; lane < lanes; lane++) shown[lanes * x + lane] = row[lanes * x + lane];
    blend(row + (int64_t)x0 * lanes, shown + (int64_t)x0 * lanes, job->best + x0, x1 - x0, lanes);
}

// The regions that meet `which[0]` in a row, directly or through others, moved to the front in the order of the layout.
static int32_t gather(const Job *job, int32_t *which, int32_t count, int32_t *x0, int32_t *x1) {
    int32_t gathered = 1;
    *x0 = job->regions[which[0]].x0, *x1 = job->regions[which[0]].x1;
    for (int32_t index = 1; index < count; index++) {
        const Region *region = job->regions + which[index];
        if (region->x0 >= *x1 || region->x1 <= *x0) continue;
        *x0 = least(*x0, region->x0), *x1 = most(*x1, region->x1);
        int32_t found = which[index];
        for (int32_t at = index; at > gathered; at--) which[at] = which[at - 1];
        which[gathered++] = found;
        index = gathered - 1;  // the span has grown: those that were passed over may meet it now
    }
    for (int32_t index = 1; index < gathered; index++)  // found in any order
        for (int32_t at = index; at > 0 && which[at] < which[at - 1]; at--) {
            int32_t other = which[at];
            which[at] = which[at - 1], which[at - 1] = other;
        }
    return gathered;
}

static void paint_row(const Job *job, int32_t y) {
    int32_t count = 0;
    for (int32_t index = 0; index < job->regions_count; index++) {
        const Region *region = job->regions + index;
        if (region->y0 <= y && y < region->y1 && region->x0 < region->x1) job->active[count++] = index;
    }
    uint8_t *row = job->plane + y * job->pitch;
    for (int32_t *which = job->active; count > 0;) {
        int32_t x0, x1, together = gather(job, which, count, &x0, &x1);
        const Region *region = job->regions + which[0];
        if (together == 1) {
            row_cover(job, region, y, job->covers);
            blend(row + (int64_t)x0 * job->lanes, job->covers, row_weights(job, region, y), x1 - x0, job->lanes);
        } else {
            paint_together(job, row, y, which, together, x0, x1);
        }
        which += together, count -= together;
    }
}

static int sound(const Job *job) {
    if (job->lanes < 1 || job->lanes > MOST_LANES || job->step < 1 || job->step > 2 || job->width < 1 || job->height < 1) return 0;
    for (int32_t index = 0; index < job->grids_count; index++) {
        const Grid *grid = job->grids + index;
        if (grid->cell < 1 || grid->columns < 1 || grid->rows < 1 || grid->first < 0) return 0;
        if (grid->x0 < 0 || grid->y0 < 0 || grid->x1 > job->width || grid->y1 > job->height) return 0;
    }
    for (int32_t index = 0; index < job->regions_count; index++) {
        const Region *region = job->regions + index;
        if (region->grid < 0 || region->grid >= job->grids_count || region->feather < 0 || region->width < 1 || region->height < 1) return 0;
        if (region->x0 < 0 || region->y0 < 0 || region->x1 > job->width || region->y1 > job->height) return 0;
    }
    return 1;
}

// Mask the regions of a plane in place; nothing is written before all means are taken. Returns a Problem.
__attribute__((visibility("default"))) int streamer_paint(const Job *job) {
    if (!sound(job)) return BAD_ARGUMENT;
    for (int32_t index = 0; index < job->grids_count && job->style == BLUR; index++)
        if ((int64_t)job->grids[index].columns * job->grids[index].rows > BLENDED) return TOO_MANY_CELLS;
    for (int32_t index = 0; index < job->grids_count && job->style != SOLID; index++) take_means(job, job->grids + index);
    int32_t top = job->height, bottom = 0;
    for (int32_t index = 0; index < job->regions_count; index++) {
        top = least(top, job->regions[index].y0), bottom = most(bottom, job->regions[index].y1);
    }
    for (int32_t y = top; y < bottom; y++) paint_row(job, y);
    return DONE;
}
