// Products of numbers rounded to 8 bits with weights of 8 bits, and GELU.
//
// The weights lie in panels of a few vectors' columns: for one unit after another of what a lane
// multiplies at a time, the panel's columns. A panel stays in the cache while all rows are
// multiplied with it, and the sums of some rows stay in registers.

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
#define PRODUCTS 1

constexpr int ROWS = 6, VECTORS = 4;  // together: 24 sums, four weights and what they are met by

inline Ints all(int32_t value) { return value - Ints{}; }
inline Ints load(const int32_t *from) { return *reinterpret_cast<const Ints *>(from); }

// As instructions of their own, since GCC would move the sums to memory and back. A lane of the
// first adds up four products of what is rounded (unsigned) with weights (signed).
inline void add_product(Ints &sum, Ints given, Ints weights) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(given), "v"(weights));
}
inline void add_product(Floats &sum, Floats given, Floats weights) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(given), "v"(weights));
}

// Adds to the sums the products of some rows, each of so many units, with a panel.
template <int Rows, typename Sums, typename Unit>
inline void add_products(Sums (&sums)[Rows][VECTORS], const Unit *given, int64_t units,
                         const Unit *panel) {
    for (int64_t u = 0; u < units; u++) {
        Sums weights[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) weights[v] = load(panel + (u * VECTORS + v) * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < Rows; r++) {
            const Sums one = all(given[r * units + u]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) add_product(sums[r][v], one, weights[v]);
        }
    }
}

// A product's weights; what is given has `inputs` columns, and what comes out `columns`. A sum
// times the column's `scale`, plus its `bias`, is the result.
struct Weights {
    int64_t inputs, columns;
    const int8_t *panels;
    const float *scale, *bias;
};

// Columns that are not rounded, (rows, inputs), and their weights.
struct Wide {
    const float *given;
    int64_t inputs;
    const float *panels;
};

template <int Rows, typename Give>
inline void multiply_rows(const uint8_t *given, const Weights &weights, const Wide &wide,
                          int64_t row, int64_t column, const Give &out) {
    const int64_t units = weights.inputs / 4;
    Ints whole[Rows][VECTORS] = {};
    add_products<Rows>(whole, reinterpret_cast<const int32_t *>(given) + row * units, units,
                       reinterpret_cast<const int32_t *>(weights.panels) + column * units);
    Floats sums[Rows][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            const int64_t at = column + v * LANES;
            sums[r][v] = __builtin_convertvector(whole[r][v], Floats) * load(weights.scale + at) +
                         load(weights.bias + at);
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

template <typename Give>
inline void multiply(const uint8_t *given, int64_t rows, const Weights &weights, const Wide &wide,
                     const Give &out) {
    for (int64_t column = 0; column < weights.columns; column += VECTORS * LANES) {
        int64_t row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            multiply_rows<ROWS>(given, weights, wide, row, column, out);
        for (; row < rows; row++) multiply_rows<1>(given, weights, wide, row, column, out);
    }
}

#else
#define PRODUCTS 0
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
// are wide. `others`, `wide` and `wide_panels` may be null where they have no columns.
#define GELU(NAME, IN)                                                                         \
    void NAME(const IN *x, int64_t rows, int64_t width, int64_t kept, uint8_t *out,            \
              float *others, const float *factor, float half) {                                \
        gelu_rows(x, rows, width, kept, out, others, {factor, half});                          \
    }

#define MULTIPLY(NAME, OUT)                                                                    \
    void NAME(const uint8_t *given, int64_t rows, int64_t inputs, int64_t columns,             \
              const int8_t *panels, const float *scale, const float *bias, const float *wide,  \
              int64_t wide_inputs, const float *wide_panels, OUT *out) {                       \
        const auto write = [&](int64_t row, int64_t column, Floats found) {                    \
            store(out + row * columns + column, found);                                        \
        };                                                                                     \
        multiply(given, rows, {inputs, columns, panels, scale, bias},                          \
                 {wide, wide_inputs, wide_panels}, write);                                     \
    }

extern "C" {
int products() { return PRODUCTS; }
GELU(gelu_f, float)
GELU(gelu_b, Bfloat16)

#if PRODUCTS
MULTIPLY(multiply_f, float)
MULTIPLY(multiply_b, Bfloat16)

void multiply_gelu(const uint8_t *given, int64_t rows, int64_t inputs, int64_t columns,
                   const int8_t *panels, const float *scale, const float *bias, int64_t kept,
                   uint8_t *out, float *others, const float *factor, float half) {
    const Rounding rounding{factor, half};
    const auto write = [&](int64_t row, int64_t column, Floats found) {
        if (column < kept) give(out + row * kept + column, gelu_of(found), column, rounding);
        else store(others + row * (columns - kept) + column - kept, gelu_of(found));
    };
    multiply(given, rows, {inputs, columns, panels, scale, bias}, {nullptr, 0, nullptr}, write);
}
#endif
}
