// Products in 8 bits and in bfloat16 with weights of the same, and GELU.
//
// The weights lie in panels of a few vectors' columns: for one unit after another of what a lane
// multiplies at a time, the panel's columns. A panel stays in the cache while all rows are
// multiplied with it, and the sums of some rows stay in registers.

#include <cstring>

#include "vectors.h"

namespace {

// x times the normal distribution function, which is a polynomial of our own fit between -4 and 4,
// and constant beyond; it errs by 2e-4 at most up to |x| = 12.
inline Floats gelu_of(Floats x) {
    const Floats near = smaller(larger(x, all(-4)), all(4));
    const Floats square = near * near;
    Floats found = all(2.27815100e-8f);
    found = found * square - 1.59860588e-6f;
    found = found * square + 4.79555893e-5f;
    found = found * square - 8.14016152e-4f;
    found = found * square + 8.77239183e-3f;
    found = found * square - 6.45731166e-2f;
    found = found * square + 3.97883356e-1f;
    return x * (near * found + 0.5f);
}

// Processors with matrix units do better by the library that knows them.
#if defined(__AVX512VNNI__) && !defined(__AMX_INT8__)
#define PRODUCTS

constexpr int ROWS = 6, VECTORS = 4;  // together: 24 sums, four weights and what they are met by
static_assert(VECTORS * LANES == 64, "the columns of a panel, as it is laid out in Python");

using Unit = int32_t;  // what a lane multiplies at a time: four numbers of 8 bits, or two bfloat16

inline Ints load(const Unit *from) { return *reinterpret_cast<const Ints *>(from); }

inline Floats every(const float *from) { return all(*from); }  // in each lane

inline Ints every(const Unit *from) {
    Unit unit;
    std::memcpy(&unit, from, sizeof unit);
    return unit - Ints{};
}

// The sums of products, as instructions of their own, since GCC would move them to memory and back.
// What is given in 8 bits is unsigned, and its weights are signed.
inline void add_product(Ints &sum, Ints given, Ints weights) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(given), "v"(weights));
}
inline void add_product(Floats &sum, Floats given, Floats weights) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(given), "v"(weights));
}
#ifdef __AVX512BF16__
inline void add_product(Floats &sum, Ints given, Ints weights) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(given), "v"(weights));
}
#endif

// Adds to the sums the products of some rows, each of so many numbers or units, with a panel.
template <int Rows, typename Sums, typename One>
inline void add_products(Sums (&sums)[Rows][VECTORS], const One *given, int64_t count,
                         const One *panel) {
    for (int64_t c = 0; c < count; c++) {
        decltype(load(panel)) weights[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) weights[v] = load(panel + (c * VECTORS + v) * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < Rows; r++) {
            const auto one = every(given + r * count + c);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) add_product(sums[r][v], one, weights[v]);
        }
    }
}

// A product's weights; what is given has `units` in a row, and what comes out `columns`. A sum
// (in 8 bits: times the column's `scale`) plus the column's `bias` is the result.
struct Weights {
    int64_t units, columns;
    const Unit *panels;
    const float *scale, *bias;
};

// Columns that are not rounded, (rows, inputs), and their weights.
struct Wide {
    const float *given;
    int64_t inputs;
    const float *panels;
};

inline Floats worth(Ints sum, const float *scale, int64_t column) {
    return __builtin_convertvector(sum, Floats) * load(scale + column);
}
inline Floats worth(Floats sum, const float *, int64_t) { return sum; }

template <typename Sums, int Rows, typename Give>
inline void multiply_rows(const Unit *given, const Weights &weights, const Wide &wide, int64_t row,
                          int64_t column, const Give &out) {
    Sums found[Rows][VECTORS] = {};
    add_products<Rows>(found, given + row * weights.units, weights.units,
                       weights.panels + column * weights.units);
    Floats sums[Rows][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            const int64_t at = column + v * LANES;
            sums[r][v] = worth(found[r][v], weights.scale, at) + load(weights.bias + at);
        }
    if (wide.inputs)
        add_products<Rows>(sums, wide.given + row * wide.inputs, wide.inputs,
                           wide.panels + column * wide.inputs);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
            if (column + v * LANES < weights.columns) out(row + r, column + v * LANES, sums[r][v]);
}

template <typename Sums, typename Give>
inline void multiply(const void *given, int64_t rows, const Weights &weights, const Wide &wide,
                     const Give &out) {
    const Unit *units = static_cast<const Unit *>(given);
    for (int64_t column = 0; column < weights.columns; column += VECTORS * LANES) {
        int64_t row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            multiply_rows<Sums, ROWS>(units, weights, wide, row, column, out);
        for (; row < rows; row++) multiply_rows<Sums, 1>(units, weights, wide, row, column, out);
    }
}

#endif

template <typename In>
void gelu_rows(const In *x, int64_t rows, int64_t width, int64_t kept, uint8_t *out, float *others,
               const Rounding &rounding) {
    for (int64_t r = 0; r < rows; r++) {
        const In *own = x + r * width;
        for (int64_t c = 0; c < kept; c += LANES)
            give(out + r * kept + c, gelu_of(load(own + c)), c, rounding);
        for (int64_t c = kept; c < width; c += LANES)
            store(others + r * (width - kept) + c - kept, gelu_of(load(own + c)));
    }
}

}  // namespace

// The arrays are as torch lays them out, but for the panels; scale and bias are as long as those
// are wide. In bfloat16 `scale` and `factor` are null, and `others`, `wide` and `wide_panels` may be
// where they have no columns.
#define GELU(NAME, IN)                                                                         \
    void NAME(const IN *x, int64_t rows, int64_t width, int64_t kept, uint8_t *out,            \
              float *others, const float *factor, float half) {                                \
        gelu_rows(x, rows, width, kept, out, others, {factor, half});                          \
    }

#define MULTIPLY(NAME, SUMS, OUT)                                                              \
    void NAME(const void *given, int64_t rows, int64_t units, int64_t columns,                 \
              const Unit *panels, const float *scale, const float *bias, const float *wide,    \
              int64_t wide_inputs, const float *wide_panels, OUT *out) {                       \
        const auto write = [&](int64_t row, int64_t column, Floats found) {                    \
            store(out + row * columns + column, found);                                        \
        };                                                                                     \
        multiply<SUMS>(given, rows, {units, columns, panels, scale, bias},                     \
                       {wide, wide_inputs, wide_panels}, write);                               \
    }

#define MULTIPLY_GELU(NAME, SUMS, OUT)                                                         \
    void NAME(const void *given, int64_t rows, int64_t units, int64_t columns,                 \
              const Unit *panels, const float *scale, const float *bias, int64_t kept,         \
              OUT *out, float *others, const float *factor, float half) {                      \
        const Rounding rounding{factor, half};                                                 \
        const auto write = [&](int64_t row, int64_t column, Floats found) {                    \
            if (column < kept) give(out + row * kept + column, gelu_of(found), column, rounding); \
            else store(others + row * (columns - kept) + column - kept, gelu_of(found));       \
        };                                                                                     \
        multiply<SUMS>(given, rows, {units, columns, panels, scale, bias},                     \
                       {nullptr, 0, nullptr}, write);                                          \
    }

extern "C" {
GELU(gelu_f, float)
GELU(gelu_b, Bfloat16)

#ifdef PRODUCTS
MULTIPLY(multiply_uf, Ints, float)
MULTIPLY(multiply_ub, Ints, Bfloat16)
MULTIPLY_GELU(multiply_gelu_u, Ints, uint8_t)
#ifdef __AVX512BF16__
MULTIPLY(multiply_bf, Floats, float)
MULTIPLY(multiply_bb, Floats, Bfloat16)
MULTIPLY_GELU(multiply_gelu_b, Floats, Bfloat16)
#endif
#endif
}
