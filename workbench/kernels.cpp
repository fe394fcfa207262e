// What a BERT layer does between its products with weights: attention, and normalisation.
//
// Each pair of texts is attended to by itself, with no padding, and what comes out is written in
// the form that the next product takes: float32, bfloat16, or rounded to the steps of 8 bits. All
// sums are in float32.

#include <cmath>
#include <cstdlib>
#include <utility>

#include "vectors.h"

namespace {

constexpr int KEYS = LANES / 2, TOKENS = LANES / 2;  // together, so that sums stay in registers
constexpr int64_t LINE = 64;  // bytes

#ifdef __clang__
#define PICKED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICKED(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

inline float sum(Floats x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

// exp(x) for x <= 0: a power of two, and Taylor's polynomial for the rest of its exponent, which
// errs by 2e-7 of the value.
inline Floats exponential(Floats x) {
    const Floats power = larger(all(-126), x * 1.44269504f);
    const Floats whole = (power + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: rounds to integers
    const Floats rest = power - whole;
    Floats found = all(1.5403530e-4f);
    found = found * rest + 1.3333558e-3f;
    found = found * rest + 9.6181291e-3f;
    found = found * rest + 5.5504109e-2f;
    found = found * rest + 2.4022651e-1f;
    found = found * rest + 6.9314718e-1f;
    found = found * rest + 1.0f;
    const Ints exponent = __builtin_convertvector(whole, Ints) << 23;
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(found) + exponent);
}

template <int Step, int... I>
inline void exchange(Floats &a, Floats &b, std::integer_sequence<int, I...>) {
    const Floats first = PICKED(a, b, (I & Step ? LANES + (I ^ Step) : I)...);
    b = PICKED(a, b, (I & Step ? LANES + I : (I ^ Step))...);
    a = first;
}

// Rows become columns: blocks of `Step` beside the diagonal change places, then larger ones.
template <int Step = 1>
inline void transpose(Floats *rows) {
    for (int i = 0; i < LANES; i++)
        if (!(i & Step))
            exchange<Step>(rows[i], rows[i + Step], std::make_integer_sequence<int, LANES>());
    if constexpr (2 * Step < LANES) transpose<2 * Step>(rows);
}

// What a lane multiplies at a time: a number, or two in bfloat16 where the processor adds up their
// products in float32. Two, that is of neighbouring columns of queries and keys, and of
// neighbouring tokens' weights and values.
using Two = uint32_t;
template <typename Unit> constexpr int HELD = 1;
template <> constexpr int HELD<Two> = 2;

inline Floats load(const Two *from) { return *reinterpret_cast<const Floats *>(from); }

inline Floats plus_product(Floats sum, float a, Floats b) { return sum + a * b; }

#ifdef __AVX512BF16__
inline Floats plus_product(Floats sum, Two a, Floats b) {
    const auto twice = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a)));
    const auto found = _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), twice,
                                        reinterpret_cast<__m512bh>(b));
    return reinterpret_cast<Floats>(found);
}
#endif

template <typename T> inline auto twos(const T *at) { return reinterpret_cast<const Two *>(at); }
inline Two *twos(float *at) { return reinterpret_cast<Two *>(at); }

// `first` and `second` in the lower and the upper half of each lane; rounded, ties upwards.
inline Floats two(Floats first, Floats second) {
    const Ints lower = (reinterpret_cast<Ints>(first) + 0x8000) >> 16 & 0xffff;
    const Ints upper = (reinterpret_cast<Ints>(second) + 0x8000) & ~0xffff;
    return reinterpret_cast<Floats>(lower | upper);
}

// One head of one pair, and room to work in.
template <typename Unit>
struct Head {
    int64_t length, size;
    const Unit *values;  // (length / held, size)
    Unit *queries;       // (size / held, lanes): those of some tokens, one in each lane
    float *weights;      // (length, lanes): what those tokens take from each token, as floats, then
                         // as units
};

// Memory of so many floats, aligned to a line of the cache; null where there is none.
inline float *room_for(int64_t count) {
    const int64_t bytes = count * sizeof(float);
    return static_cast<float *>(std::aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE));
}

// The weights of softmax, and one over their sum, for `Vectors` vectors of queries; `key` gives the
// key of a token, as units.
template <int Vectors, typename Unit, typename Key>
inline void weigh(const Head<Unit> &head, const Key &key, Floats *scale) {
    constexpr int WIDTH = Vectors * LANES;
    Floats most[Vectors], total[Vectors] = {};
    for (int v = 0; v < Vectors; v++) most[v] = all(-INFINITY);
    for (int64_t j = 0; j < head.length; j += KEYS) {
        Floats scores[KEYS][Vectors] = {};
        const Unit *keys[KEYS];  // of the last token again, where there are no more
        for (int k = 0; k < KEYS; k++) keys[k] = key(j + k < head.length ? j + k : head.length - 1);
        for (int64_t c = 0; c < head.size / HELD<Unit>; c++)
            for (int k = 0; k < KEYS; k++)
                for (int v = 0; v < Vectors; v++)
                    scores[k][v] = plus_product(scores[k][v], keys[k][c],
                                                load(head.queries + c * WIDTH + v * LANES));
        for (int k = 0; k < KEYS && j + k < head.length; k++)
            for (int v = 0; v < Vectors; v++) {
                store(head.weights + (j + k) * WIDTH + v * LANES, scores[k][v]);
                most[v] = larger(scores[k][v], most[v]);
            }
    }
    for (int64_t j = 0; j < head.length; j += HELD<Unit>)
        for (int v = 0; v < Vectors; v++) {
            float *own = head.weights + j * WIDTH + v * LANES;
            Floats weight = exponential(load(own) - most[v]);
            total[v] += weight;
            if constexpr (HELD<Unit> == 2) {
                Floats next = {};
                if (j + 1 < head.length) next = exponential(load(own + WIDTH) - most[v]);
                total[v] += next;
                weight = two(weight, next);
            }
            store(head.weights + j / HELD<Unit> * WIDTH + v * LANES, weight);
        }
    for (int v = 0; v < Vectors; v++) scale[v] = 1.0f / total[v];
}

// The mean of the values by the weights, for the columns of `Wide` vectors from `column` on.
template <int Vectors, int Wide, typename Unit, typename Out>
inline void mix(const Head<Unit> &head, const Floats *scale, int64_t count, int64_t column,
                Out *out, int64_t width, const Rounding &rounding) {
    constexpr int WIDTH = Vectors * LANES;
    const Unit *weights = reinterpret_cast<const Unit *>(head.weights);
    for (int64_t i = 0; i < count; i += TOKENS) {
        Floats sums[TOKENS][Wide] = {};
        for (int64_t j = 0; j * HELD<Unit> < head.length; j++)
            for (int t = 0; t < TOKENS; t++)
                for (int w = 0; w < Wide; w++)
                    sums[t][w] = plus_product(
                        sums[t][w], weights[j * WIDTH + i + t],
                        load(head.values + j * head.size + column + w * LANES));
        for (int t = 0; t < TOKENS && i + t < count; t++)
            for (int w = 0; w < Wide; w++) {
                const int64_t at = column + w * LANES;
                const Floats found = sums[t][w] * scale[(i + t) / LANES][(i + t) % LANES];
                give(out + (i + t) * width + at, found, at, rounding);
            }
    }
}

// From `count` <= Vectors * LANES tokens to the others; `query` and `key` give those of a token,
// `query` as what can be loaded as units.
template <int Vectors, typename Unit, typename Query, typename Key, typename Out>
inline void attend_from(const Head<Unit> &head, const Query &query, const Key &key, int64_t count,
                        Out *out, int64_t width, const Rounding &rounding) {
    for (int v = 0; v < Vectors; v++)
        for (int64_t c = 0; c < head.size / HELD<Unit>; c += LANES) {
            Floats rows[LANES];
            for (int i = 0; i < LANES; i++) {
                const int64_t token = v * LANES + i;
                rows[i] = token < count ? load(query(token) + c) : all(0);
            }
            transpose(rows);
            for (int i = 0; i < LANES; i++) {
                Unit *to = head.queries + (c + i) * Vectors * LANES + v * LANES;
                store(reinterpret_cast<float *>(to), rows[i]);
            }
        }
    Floats scale[Vectors];
    weigh<Vectors>(head, key, scale);
    int64_t column = 0;
    for (; column + 2 * LANES <= head.size; column += 2 * LANES)
        mix<Vectors, 2>(head, scale, count, column, out, width, rounding);
    if (column < head.size) mix<Vectors, 1>(head, scale, count, column, out, width, rounding);
}

// The same from all tokens.
template <typename Unit, typename Query, typename Key, typename Out>
inline void attend_from_all(const Head<Unit> &head, const Query &query, const Key &key, Out *out,
                            int64_t width, const Rounding &rounding) {
    for (int64_t i = 0; i < head.length; i += 2 * LANES) {
        const auto from = [&](int64_t token) { return query(i + token); };
        const int64_t left = head.length - i, count = left < 2 * LANES ? left : 2 * LANES;
        if (count > LANES) attend_from<2>(head, from, key, count, out + i * width, width, rounding);
        else attend_from<1>(head, from, key, count, out + i * width, width, rounding);
    }
}

inline int64_t most(const int64_t *numbers, int64_t count) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++) found = numbers[i] > found ? numbers[i] : found;
    return found;
}

template <typename In, typename Out>
int attend_pairs(const In *joint, const int64_t *places, const int64_t *firsts,
                 const int64_t *lengths, int64_t pairs, int64_t heads, int64_t size, Out *out,
                 const Rounding &rounding) {
    const int64_t width = heads * size, stride = 3 * width;
    const int64_t longest = most(lengths, pairs);
    float *scratch = room_for(2 * longest * size + 2 * LANES * (size + longest));
    if (!scratch) return 1;
    float *keys = scratch, *values = keys + longest * size, *queries = values + longest * size;
    float *weights = queries + 2 * LANES * size;
    for (int64_t p = 0; p < pairs; p++)
        for (int64_t h = 0; h < heads; h++) {
            const auto own = [&](int64_t token) {
                const int64_t place = firsts[p] + token;
                return joint + (places ? places[place] : place) * stride + h * size;
            };
            Out *to = out + firsts[p] * width + h * size;
            const int64_t length = lengths[p];
            const Rounding here{rounding.factor ? rounding.factor + h * size : nullptr,
                                rounding.half};
#ifdef __AVX512BF16__
            if constexpr (sizeof(In) == 2 && sizeof(Out) == 1)
                if (size % (2 * LANES) == 0) {  // what is rounded to 8 bits may err by bfloat16
                    for (int64_t j = 0; j < length; j += 2)
                        for (int64_t c = 0; c < size; c += LANES) {
                            const Floats first = load(own(j) + 2 * width + c);
                            Floats next = {};
                            if (j + 1 < length) next = load(own(j + 1) + 2 * width + c);
                            store(values + j / 2 * size + c, two(first, next));
                        }
                    const auto query = [&](int64_t token) { return twos(own(token)); };
                    const auto key = [&](int64_t token) { return twos(own(token) + width); };
                    attend_from_all(Head<Two>{length, size, twos(values), twos(queries), weights},
                                    query, key, to, width, here);
                    continue;
                }
#endif
            for (int64_t j = 0; j < length; j++)
                for (int64_t c = 0; c < size; c += LANES) {
                    store(keys + j * size + c, load(own(j) + width + c));
                    store(values + j * size + c, load(own(j) + 2 * width + c));
                }
            const auto key = [&](int64_t token) { return keys + token * size; };
            attend_from_all(Head<float>{length, size, values, queries, weights}, own, key, to,
                            width, here);
        }
    std::free(scratch);
    return 0;
}

template <typename In, typename Out>
void normalise_rows(float *x, const In *more, int64_t rows, int64_t width, const float *weight,
                    const float *bias, float epsilon, Out *out, const Rounding &rounding) {
    for (int64_t r = 0; r < rows; r++) {
        float *own = x + r * width;
        Floats total = {}, squares = {};
        for (int64_t c = 0; c < width; c += LANES) {
            Floats found = load(own + c);
            if (more) {
                found += load(more + r * width + c);
                store(own + c, found);
            }
            total += found;
        }
        const float mean = sum(total) / width;
        for (int64_t c = 0; c < width; c += LANES) {
            const Floats far = load(own + c) - mean;
            squares += far * far;
        }
        const float scale = 1 / std::sqrt(sum(squares) / width + epsilon);
        for (int64_t c = 0; c < width; c += LANES) {
            const Floats found = (load(own + c) - mean) * scale * load(weight + c) + load(bias + c);
            store(own + c, found);
            if (out) give(out + r * width + c, found, c, rounding);
        }
    }
}

}  // namespace

// The arrays are as torch lays them out; what is given and what comes out is float32, bfloat16 or
// uint8 as the letters behind the name say: f, b, u. These may be null: `places`, where each token
// is in its own row of `joint`; `factor`, where nothing is rounded; `more`, which is added to `x`;
// and the `out` of `normalise`.
#define ATTEND(NAME, IN, OUT)                                                                  \
    int NAME(const IN *joint, const int64_t *places, const int64_t *firsts,                    \
             const int64_t *lengths, int64_t pairs, int64_t heads, int64_t size, OUT *out,     \
             const float *factor, float half) {                                                \
        return attend_pairs(joint, places, firsts, lengths, pairs, heads, size, out,           \
                            {factor, half});                                                   \
    }
#define NORMALISE(NAME, IN, OUT)                                                               \
    void NAME(float *x, const IN *more, int64_t rows, int64_t width, const float *weight,      \
              const float *bias, float epsilon, OUT *out, const float *factor, float half) {   \
        normalise_rows(x, more, rows, width, weight, bias, epsilon, out, {factor, half});      \
    }

extern "C" {
int lanes() { return LANES; }
ATTEND(attend_ff, float, float)
ATTEND(attend_fu, float, uint8_t)
ATTEND(attend_bb, Bfloat16, Bfloat16)
ATTEND(attend_bu, Bfloat16, uint8_t)
NORMALISE(normalise_ff, float, float)
NORMALISE(normalise_fb, float, Bfloat16)
NORMALISE(normalise_fu, float, uint8_t)
NORMALISE(normalise_bf, Bfloat16, float)
NORMALISE(normalise_bb, Bfloat16, Bfloat16)
NORMALISE(normalise_bu, Bfloat16, uint8_t)

// Each head of a pair's first token mixes the pair's tokens themselves.
int mix(const float *asked, const float *x, const int64_t *firsts, const int64_t *lengths,
        int64_t pairs, int64_t heads, int64_t width, float *out) {
    float *scratch = room_for(LANES * (width + most(lengths, pairs)));
    if (!scratch) return 1;
    for (int64_t p = 0; p < pairs; p++) {
        const float *own = x + firsts[p] * width;
        const Head<float> head{lengths[p], width, own, scratch, scratch + LANES * width};
        const auto key = [&](int64_t token) { return own + token * width; };
        for (int64_t h = 0; h < heads; h += LANES) {
            const int64_t start = (p * heads + h) * width;
            const auto query = [&](int64_t other) { return asked + start + other * width; };
            const int64_t count = heads - h < LANES ? heads - h : LANES;
            attend_from<1>(head, query, key, count, out + start, width, Rounding{});
        }
    }
    std::free(scratch);
    return 0;
}
}
