use super::*;
use crate::rng::Rng;

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, &[n as u64]);
    (0..n).map(|_| rng.normal()).collect()
}

fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// Every orientation, sizes that are multiples of nothing, and more than one block of the inner dimension.
#[test]
fn products_are_those_of_f64() {
    for (m, k, n) in [
        (1, 1, 1),
        (7, 13, 17),
        (100, 600, 70),
        (33, 1100, 95),
        (5, 0, 3),
        (64, 64, 64),
        (50, 90, 1),
        (1, 90, 40),
        (40, 1, 40),
    ] {
        for (transposed_a, transposed_b) in [(false, false), (false, true), (true, false), (true, true)] {
            let (a, b) = (random(m * k, 1), random(k * n, 2));
            let view_a = if transposed_a { View::new(&a, k, m, m).t() } else { View::new(&a, m, k, k) };
            let view_b = if transposed_b { View::new(&b, n, k, k).t() } else { View::new(&b, k, n, n) };
            for precision in [Precision::F32, Precision::Bf16, Precision::Bf16x3] {
                let product = Product::new(view_a, view_b).precision(precision).times(0.5);
                let mut out = vec![f32::NAN; m * n];
                product.write_then(rewrite(&mut out), Threads::All, |row, first, values| {
                    values.iter_mut().enumerate().for_each(|(i, value)| *value += (row * n + first + i) as f32);
                });
                product.add_to(&mut out, Threads::One);
                for (at, value) in out.iter().enumerate() {
                    let (i, j) = (at / n, at % n);
                    let exact: f64 = (0..k)
                        .map(|q| {
                            let a = if transposed_a { a[q * m + i] } else { a[i * k + q] };
                            let b = if transposed_b { b[j * k + q] } else { b[q * n + j] };
                            match precision {
                                Precision::F32 | Precision::Bf16x3 | Precision::Int8 => f64::from(a) * f64::from(b),
                                Precision::Bf16 => f64::from(rounded(a)) * f64::from(rounded(b)),
                            }
                        })
                        .sum();
                    let error = (f64::from(*value) - exact - at as f64).abs();
                    let each = if precision == Precision::Bf16x3 { 2e-5 } else { 2e-6 };
                    let allowed = each * (k as f64).sqrt() + 1e-6 * at as f64;
                    assert!(error <= allowed, "{m} {k} {n} {transposed_a} {transposed_b} {precision:?}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn neither_threads_nor_packing_ahead_change_a_bit() {
    let (a, b) = (random(150 * 700, 1), random(700 * 200, 2));
    let (a, b) = (View::new(&a, 150, 700, 700), View::new(&b, 200, 700, 700).t());
    for precision in [Precision::F32, Precision::Bf16, Precision::Bf16x3] {
        let on = |threads| {
            let mut out = vec![0.0; 150 * 200];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Product::new(a, b).precision(precision).write(rewrite(&mut out), Threads::All));
            out
        };
        let mut panels = Panels::default();
        panels.pack(b, precision);
        let mut packed = vec![0.0; 150 * 200];
        panels.write(a, 1.0, rewrite(&mut packed), 200);
        assert!(on(1) == on(3) && on(1) == packed);
    }
}

#[test]
fn a_row_inside_of_others_is_left_alone() {
    let (a, b) = (random(20 * 9, 1), random(9 * 5, 2));
    let mut whole = vec![0.0; 20 * 5];
    Product::new(View::new(&a, 20, 9, 9), View::new(&b, 9, 5, 5)).write(rewrite(&mut whole), Threads::One);
    let mut some = vec![0.0; 3 * 5];
    let rows = View::new(&a, 20, 9, 9).rows(16..19);
    Product::new(rows, View::new(&b, 9, 5, 5)).write(rewrite(&mut some), Threads::One);
    assert_eq!(some, whole[80..95]);
}
