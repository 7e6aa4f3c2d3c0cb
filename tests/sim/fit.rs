//! Fitting a power law to integers, and comparing it with an exponential.
//!
//! After A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law distributions in
//! empirical data", SIAM Review 51 (2009): the exponent by maximum likelihood
//! for discrete data, the start of the tail where the Kolmogorov-Smirnov
//! distance is least, and the comparison by Vuong's likelihood-ratio test.

use std::collections::BTreeMap;

/// A tail shorter than this says nothing: its best fit is chance.
const SHORTEST_TAIL: usize = 50;

/// Exponents that are considered.
const EXPONENTS: (f64, f64) = (1.01, 8.0);

/// P(x) = x^-alpha / ζ(alpha, xmin) for x ≥ xmin.
#[derive(Clone, Copy, Debug)]
pub struct PowerLaw {
    pub alpha: f64,
    pub xmin: u64,
    /// Kolmogorov-Smirnov distance between the tail and the fit.
    pub distance: f64,
    /// Values in the tail.
    pub tail: usize,
}

/// What the likelihood-ratio test says of a power law against an exponential.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Logarithm of the ratio, in standard deviations; positive where the power law is better.
    pub ratio: f64,
    /// Probability that a ratio so far from zero is chance.
    pub p: f64,
}

impl Comparison {
    /// The power law is better, and not by chance.
    pub fn power_law_wins(&self) -> bool {
        self.ratio > 0.0 && self.p < 0.05
    }
}

/// Hurwitz's zeta function, Σ (q + k)^-s over k ≥ 0, by Euler and Maclaurin; s > 1, q > 0.
pub fn zeta(s: f64, q: f64) -> f64 {
    const TERMS: u32 = 12;
    let direct: f64 = (0..TERMS).map(|k| (q + f64::from(k)).powf(-s)).sum();
    let a = q + f64::from(TERMS);
    let power = a.powf(-s);
    let rest = power * a / (s - 1.0) + power / 2.0 + s * power / (12.0 * a)
        - s * (s + 1.0) * (s + 2.0) * power / (720.0 * a.powi(3))
        + s * (s + 1.0) * (s + 2.0) * (s + 3.0) * (s + 4.0) * power / (30_240.0 * a.powi(5));
    direct + rest
}

/// The complementary error function, good to 1.2e-7 (Press et al., Numerical Recipes, 6.2).
pub fn erfc(x: f64) -> f64 {
    const C: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let polynomial = C.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let tail = t * (polynomial - x * x).exp();
    if x >= 0.0 { tail } else { 2.0 - tail }
}

/// How often each value occurs, from `xmin` on.
fn counts(sample: &[u64], xmin: u64) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for value in sample.iter().filter(|value| **value >= xmin) {
        *counts.entry(*value).or_default() += 1;
    }
    counts
}

/// The exponent of the greatest likelihood for a tail that starts at `xmin`.
fn exponent(tail: &BTreeMap<u64, usize>, xmin: u64) -> f64 {
    let n: f64 = tail.values().map(|count| *count as f64).sum();
    let logs: f64 = tail.iter().map(|(value, count)| *count as f64 * (*value as f64).ln()).sum();
    let likelihood = |alpha: f64| -n * zeta(alpha, xmin as f64).ln() - alpha * logs;
    // The likelihood has one maximum: golden section finds it.
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = EXPONENTS;
    while high - low > 1e-6 {
        let span = golden * (high - low);
        if likelihood(high - span) < likelihood(low + span) {
            low = high - span;
        } else {
            high = low + span;
        }
    }
    (low + high) / 2.0
}

fn distance(tail: &BTreeMap<u64, usize>, alpha: f64, xmin: u64) -> f64 {
    let n: f64 = tail.values().map(|count| *count as f64).sum();
    let whole = zeta(alpha, xmin as f64);
    let mut worst: f64 = 0.0;
    let mut below = 0.0;
    for (value, count) in tail {
        // Both step functions differ most just before or at a value that occurs.
        let fitted = |x: u64| 1.0 - zeta(alpha, x as f64) / whole;
        worst = worst.max((below / n - fitted(*value)).abs());
        below += *count as f64;
        worst = worst.max((below / n - fitted(value + 1)).abs());
    }
    worst
}

/// The power law that fits best; none for a sample without a tail that is long enough.
pub fn fit(sample: &[u64]) -> Option<PowerLaw> {
    let starts = counts(sample, 1).into_keys();
    let fits = starts.filter_map(|xmin| {
        let tail = counts(sample, xmin);
        let size = tail.values().sum();
        if size < SHORTEST_TAIL || tail.len() < 3 {
            return None;
        }
        let alpha = exponent(&tail, xmin);
        Some(PowerLaw { alpha, xmin, distance: distance(&tail, alpha, xmin), tail: size })
    });
    fits.min_by(|a, b| a.distance.total_cmp(&b.distance))
}

/// Compares the fit with the exponential of the greatest likelihood over the same tail.
pub fn compare(sample: &[u64], fit: &PowerLaw) -> Comparison {
    let xmin = fit.xmin as f64;
    let tail: Vec<f64> =
        sample.iter().filter(|value| **value >= fit.xmin).map(|value| *value as f64).collect();
    let n = tail.len() as f64;
    let mean = tail.iter().sum::<f64>() / n;
    // P(x) = (1 - e^-rate) e^(-rate (x - xmin)); for a tail of one value the rate is unbounded.
    let rate = (1.0 / (mean - xmin).max(1e-9)).ln_1p();
    let whole = zeta(fit.alpha, xmin).ln();
    let ratios: Vec<f64> = tail
        .iter()
        .map(|x| {
            let power = -fit.alpha * x.ln() - whole;
            let exponential = (-(-rate).exp()).ln_1p() - rate * (x - xmin);
            power - exponential
        })
        .collect();
    let average = ratios.iter().sum::<f64>() / n;
    let variance = ratios.iter().map(|r| (r - average).powi(2)).sum::<f64>() / n;
    let ratio = average * n / (n * variance).sqrt();
    Comparison { ratio, p: erfc(ratio.abs() / 2.0_f64.sqrt()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    /// Draws from x^-alpha for x ≥ xmin by going through the distribution.
    fn power_law(rng: &mut SmallRng, alpha: f64, xmin: u64) -> u64 {
        let whole = zeta(alpha, xmin as f64);
        let mut left = rng.random::<f64>();
        let mut x = xmin;
        loop {
            left -= (x as f64).powf(-alpha) / whole;
            if left <= 0.0 || x > 1_000_000 {
                return x;
            }
            x += 1;
        }
    }

    fn geometric(rng: &mut SmallRng, rate: f64, xmin: u64) -> u64 {
        xmin + (-(1.0 - rng.random::<f64>()).ln() / rate) as u64
    }

    #[test]
    fn zeta_and_erfc_have_their_known_values() {
        let pi = std::f64::consts::PI;
        assert!((zeta(2.0, 1.0) - pi * pi / 6.0).abs() < 1e-9);
        assert!((zeta(4.0, 1.0) - pi.powi(4) / 90.0).abs() < 1e-9);
        assert!((zeta(2.5, 1.0) - 1.341_487_257_250_917).abs() < 1e-9);
        assert!((zeta(2.5, 1.0) - 1.0 - zeta(2.5, 2.0)).abs() < 1e-9);
        assert!((erfc(0.0) - 1.0).abs() < 1e-6);
        assert!((erfc(1.0) - 0.157_299_207).abs() < 1e-6);
        assert!((erfc(-1.0) - 1.842_700_793).abs() < 1e-6);
    }

    #[test]
    fn a_power_law_is_found_with_its_exponent_and_beats_an_exponential() {
        for (seed, alpha) in [(1, 2.2), (2, 2.5), (3, 3.0)] {
            let mut rng = SmallRng::seed_from_u64(seed);
            let sample: Vec<u64> = (0..3_000).map(|_| power_law(&mut rng, alpha, 3)).collect();
            let found = fit(&sample).unwrap();
            assert!((found.alpha - alpha).abs() < 0.2, "drawn with {alpha}, found {found:?}");
            // Peers have a greatest degree. Without one, a single value far out can make the
            // variance of the ratio so great that nothing is significant any more.
            let bounded: Vec<u64> = sample.into_iter().filter(|value| *value <= 100).collect();
            let compared = compare(&bounded, &found);
            assert!(compared.power_law_wins(), "{alpha}: {found:?} {compared:?}");
        }
    }

    #[test]
    fn the_start_of_the_tail_is_found() {
        let mut rng = SmallRng::seed_from_u64(4);
        // Below 6 there is no power law: as many ones as twos, threes, fours and fives.
        let mut sample: Vec<u64> = (0..2_000).map(|_| power_law(&mut rng, 2.5, 6)).collect();
        sample.extend((0..1_500).map(|_| rng.random_range(1..6)));
        let found = fit(&sample).unwrap();
        assert!((5..=9).contains(&found.xmin), "{found:?}");
        assert!((found.alpha - 2.5).abs() < 0.25, "{found:?}");
    }

    #[test]
    fn an_exponential_does_not_pass_for_a_power_law() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let sample: Vec<u64> = (0..1_000).map(|_| geometric(&mut rng, 0.3, 3)).collect();
            let found = fit(&sample).unwrap();
            let compared = compare(&sample, &found);
            assert!(!compared.power_law_wins(), "{seed}: {found:?} {compared:?}");
        }
    }

    #[test]
    fn a_sample_without_a_tail_has_no_fit() {
        assert!(fit(&[]).is_none());
        assert!(fit(&[3; 1_000]).is_none());
    }
}
