/* The few vector operations of kernel.c, by the instruction set that it is compiled for.
 *
 * Only `v_fma` is more than a convenience: it rounds once. Compile with -ffp-contract=off: the
 * compiler must fuse nothing else. The portable level computes the same in double precision.
 */
#ifndef KUBEVO_VECTORS_H
#define KUBEVO_VECTORS_H

#include <stdint.h>
#include <string.h>

/* A tile of a convolution is TILE patches by VECTORS vectors; its sums stay in registers. */

#if defined(LEVEL_avx512)

#include <immintrin.h>
#define LANES 16
#define VECTORS 2
#define TILE 11
typedef __m512 Vector;
typedef __m512i Words;
#define v_load _mm512_loadu_ps
#define v_store _mm512_storeu_ps
#define v_all _mm512_set1_ps
#define v_fma _mm512_fmadd_ps
#define v_relu(x) _mm512_max_ps(x, _mm512_setzero_ps()) /* of NaN and 0 it takes the second, 0 */
#define w_load(p) _mm512_loadu_si512((const void *)(p))
#define w_low(w) _mm512_castsi512_ps(_mm512_slli_epi32(w, 16))
#define w_high(w) _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(-65536)))

#elif defined(LEVEL_avx2)

#include <immintrin.h>
#define LANES 8
#define VECTORS 2
#define TILE 6
typedef __m256 Vector;
typedef __m256i Words;
#define v_load _mm256_loadu_ps
#define v_store _mm256_storeu_ps
#define v_all _mm256_set1_ps
#define v_fma _mm256_fmadd_ps
#define v_relu(x) _mm256_max_ps(x, _mm256_setzero_ps()) /* of NaN and 0 it takes the second, 0 */
#define w_load(p) _mm256_loadu_si256((const __m256i *)(p))
#define w_low(w) _mm256_castsi256_ps(_mm256_slli_epi32(w, 16))
#define w_high(w) _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(-65536)))

#elif defined(LEVEL_neon)

#include <arm_neon.h>
#define LANES 4
#define VECTORS 4
#define TILE 5
typedef float32x4_t Vector;
typedef uint32x4_t Words;
#define v_load vld1q_f32
#define v_store vst1q_f32
#define v_all vdupq_n_f32
#define v_fma(x, w, sum) vfmaq_f32(sum, x, w)
#define v_relu(x) vbslq_f32(vcgtq_f32(x, vdupq_n_f32(0)), x, vdupq_n_f32(0))
#define w_load vld1q_u32
#define w_low(w) vreinterpretq_f32_u32(vshlq_n_u32(w, 16))
#define w_high(w) vreinterpretq_f32_u32(vandq_u32(w, vdupq_n_u32(0xffff0000u)))

#else /* portable: any CPU with IEEE doubles, by the vectors of GNU C */

#define LANES 4
#define VECTORS 4
#define TILE 1
typedef float Vector __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));
typedef int32_t Integers __attribute__((vector_size(16)));
typedef double Doubles __attribute__((vector_size(32)));
typedef int64_t Bits __attribute__((vector_size(32)));
typedef uint64_t Unsigned __attribute__((vector_size(32)));

static inline Vector v_load(const float *from)
{
    Vector found;
    memcpy(&found, from, sizeof found);
    return found;
}

static inline void v_store(float *to, Vector values) { memcpy(to, &values, sizeof values); }

static inline Vector v_all(float value) { return (Vector){value, value, value, value}; }

static inline int is_any(Words mask)
{
    uint64_t halves[2];
    memcpy(halves, &mask, sizeof halves);
    return (halves[0] | halves[1]) != 0;
}

/* x * w + sum, rounded once. The product of two floats is exact in a double. Its sum is rounded to
 * odd: if it is inexact, to the neighbour whose last bit is 1, so that the rounding to float sees
 * what was cut off. */
static inline Vector fused_by_odd(Doubles product, Doubles third, Doubles total)
{
    Doubles part = total - product;
    Doubles rest = (product - (total - part)) + (third - part); /* total + rest is exact */
    Bits inexact = (rest < 0) | (rest > 0);                     /* neither for NaN */
    Bits bits = (Bits)total, even = (bits & 1) - 1;
    Bits away = 1 - 2 * (Bits)((Unsigned)((Bits)rest ^ bits) >> 63); /* +1 if the signs are equal */
    bits += away & inexact & even;
    return __builtin_convertvector((Doubles)bits, Vector);
}

/* Rounding twice, to double and to float, is rounding once, but where the double lies halfway between
 * two floats: the 29 bits that a float lacks are 100...0, or others where floats are subnormal. */
static inline Vector v_fma(Vector x, Vector w, Vector sum)
{
    Doubles third = __builtin_convertvector(sum, Doubles);
    Doubles product = __builtin_convertvector(x, Doubles) * __builtin_convertvector(w, Doubles);
    Doubles total = product + third;
    Vector found = __builtin_convertvector(total, Vector);
    Words lacking = __builtin_convertvector((Unsigned)total, Words) & 0x1fffffffu;
    Words is_halfway = (Words)(lacking == 0x10000000u);
    Words is_small = (Words)(((Integers)found & 0x7fffffff) <= 0x00800000);
    if (__builtin_expect(is_any(is_halfway | is_small), 0))
        return fused_by_odd(product, third, total);
    return found;
}

static inline Vector v_relu(Vector x) { return (Vector)((Words)x & (Words)(x > 0)); }

static inline Words w_load(const uint32_t *from)
{
    Words found;
    memcpy(&found, from, sizeof found);
    return found;
}

#define w_low(w) ((Vector)((w) << 16))
#define w_high(w) ((Vector)((w) & 0xffff0000u))

#endif
#endif
