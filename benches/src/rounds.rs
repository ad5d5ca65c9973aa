//! Rounds: everyone takes a turn in each, so that a slow moment of the machine hits all of them, and two of them are
//! compared within the rounds they share.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How long one turn takes: long enough that the clock weighs nothing, and short enough that the machine is the same
/// for those who follow.
const TURN: Duration = Duration::from_millis(2);

/// Someone who takes turns.
pub struct Contestant<'a> {
    work: Box<dyn FnMut(u32) -> Result<Duration> + 'a>,
    per_turn: u32,
    samples: Vec<f64>,
}

impl<'a> Contestant<'a> {
    /// `work` does the given count of operations and tells how long it took. Before it looks at the clock it does one
    /// more, which finds the caches as the one before it left them.
    pub fn new(work: impl FnMut(u32) -> Result<Duration> + 'a) -> Self {
        Self {
            work: Box::new(work),
            per_turn: 1,
            samples: Vec::new(),
        }
    }

    /// `operation` is timed here.
    pub fn timed(mut operation: impl FnMut() -> Result<()> + 'a) -> Self {
        Self::new(move |count| {
            operation()?;
            let begin = Instant::now();
            for _ in 0..count {
                operation()?;
            }
            Ok(begin.elapsed())
        })
    }

    /// Microseconds for one operation, one sample for each round.
    pub fn samples(&self) -> &[f64] {
        &self.samples
    }

    /// Finds the count of operations that fills a turn.
    fn warm_up(&mut self) -> Result<()> {
        // Until it has settled: caches, branch predictor, the peer's runtime.
        for _ in 0..4 {
            let took = (self.work)(self.per_turn)?.max(Duration::from_nanos(1));
            let fill = TURN.as_secs_f64() / took.as_secs_f64();
            let wanted = (f64::from(self.per_turn) * fill).round();
            let wanted = wanted.clamp(1.0, 1_000_000.0) as u32;
            self.per_turn = wanted;
        }
        Ok(())
    }

    fn take_turn(&mut self) -> Result<()> {
        let took = (self.work)(self.per_turn)?;
        self.samples
            .push(took.as_secs_f64() * 1e6 / f64::from(self.per_turn));
        Ok(())
    }
}

/// Rounds until `limit` is over, at least three.
///
/// # Errors
/// The first that a contestant has.
pub fn run_rounds(contestants: &mut [Contestant<'_>], limit: Duration) -> Result<usize> {
    for contestant in contestants.iter_mut() {
        contestant.warm_up()?;
    }
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 3 || begin.elapsed() < limit {
        for contestant in contestants.iter_mut() {
            contestant.take_turn()?;
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => f64::NAN,
        Some(_) if sorted.len().is_multiple_of(2) => {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
        Some(value) => *value,
    }
}

/// The smallest value.
pub fn minimum(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The middle of the ratios of each round.
pub fn median_ratio(above: &[f64], below: &[f64]) -> f64 {
    let ratios: Vec<_> = above.iter().zip(below).map(|(a, b)| a / b).collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_slow_round_of_the_machine_is_not_a_ratio() {
        let (ours, floor) = ([10.0, 90.0, 10.0], [5.0, 45.0, 5.0]);
        assert!((median_ratio(&ours, &floor) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn everyone_has_a_sample_of_each_round() {
        let mut both = [
            Contestant::new(|count| Ok(Duration::from_micros(5) * count)),
            Contestant::new(|count| Ok(Duration::from_micros(10) * count)),
        ];
        let rounds = run_rounds(&mut both, Duration::ZERO).unwrap();
        assert_eq!(rounds, 3);
        assert_eq!(both[0].samples().len(), 3);
        assert!((median_ratio(both[1].samples(), both[0].samples()) - 2.0).abs() < 1e-9);
    }
}
