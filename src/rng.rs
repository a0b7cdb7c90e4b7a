//! Randomness as a function: the same key gives the same numbers, on every machine and in every version.
//!
//! A stream is named by a seed and a few counters (iteration, slot, purpose), so nothing has to be saved to resume it.

/// A stream of pseudo-random numbers (SplitMix64), named by the key it was made from.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of `seed` at the given counters, for instance `Rng::new(seed, &[iteration, slot])`.
    pub fn new(seed: u64, counters: &[u64]) -> Self {
        let key = counters.iter().fold(mix(seed ^ 0x5851_f42d_4c95_7f2d), |key, counter| {
            mix(key.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix(counter.wrapping_add(0x1405_7b7e_f767_814f)))
        });
        Self(key)
    }

    /// The stream of `seed` that belongs to a name, for instance a parameter's.
    pub fn named(seed: u64, name: &str) -> Self {
        Self::new(seed, &[fnv1a(name.as_bytes())])
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1 << 24) as f32
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n; 0 when n is 0. The bias is below 2^-32 for the sizes used here.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box-Muller, in f64).
    pub fn normal(&mut self) -> f32 {
        let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (u, v) = (unit(self.next_u64()), unit(self.next_u64()));
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// A random order of 0..n (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// The order in which names stand by their `hash`: as good as shuffled, and the same wherever and whenever. Names of
/// one hash stay as they are.
pub(crate) fn order_by_hash<T>(names: &[T], hash: impl Fn(&T) -> u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|at| (hash(&names[*at]), *at));
    order
}

/// The 64-bit FNV-1a hash.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_and_apart() {
        let draw = |seed, counters: &[u64]| Rng::new(seed, counters).next_u64();
        assert_eq!(draw(1, &[2, 3]), draw(1, &[2, 3]));
        let keys = [draw(1, &[2, 3]), draw(1, &[3, 2]), draw(2, &[2, 3]), draw(1, &[2]), draw(1, &[2, 3, 0])];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn moments_are_right() {
        let mut rng = Rng::new(7, &[]);
        let n = 100_000;
        let uniform: f64 = (0..n).map(|_| f64::from(rng.uniform())).sum::<f64>() / f64::from(n);
        let normal: Vec<f64> = (0..n).map(|_| f64::from(rng.normal())).collect();
        let mean = normal.iter().sum::<f64>() / f64::from(n);
        let variance = normal.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((uniform - 0.5).abs() < 0.01 && mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03);
        let mut order = rng.permutation(100);
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
