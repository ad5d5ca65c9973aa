//! Rounds: everyone takes a turn in each, so that a slow moment of the machine hits all of them, and two of them are
//! compared within the rounds they share.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::stopwatch::{Stopwatch, Taken};

/// How long a turn of ours takes: long enough that looking at the clock weighs nothing, and short enough that the
/// machine is the same for those who follow.
const OUR_TURN: Duration = Duration::from_millis(2);

/// Someone who takes turns.
pub struct Contestant<'a> {
    work: Box<dyn FnMut(u32) -> Result<Taken> + 'a>,
    turn: Duration,
    per_turn: u32,
    samples: Samples,
}

/// Microseconds for one operation, one sample for each round.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// See [`Taken::clock`].
    pub clock: Vec<f64>,
    /// See [`Taken::processor`].
    pub processor: Vec<f64>,
}

impl<'a> Contestant<'a> {
    /// `work` does the given count of operations and tells what they took. Before it looks at the clock it does one
    /// more, which finds the caches as the one before it left them.
    pub fn new(turn: Duration, work: impl FnMut(u32) -> Result<Taken> + 'a) -> Self {
        Self {
            work: Box::new(work),
            turn,
            per_turn: 1,
            samples: Samples::default(),
        }
    }

    /// `operation` is timed here.
    pub fn timed(mut operation: impl FnMut() -> Result<()> + 'a) -> Self {
        Self::new(OUR_TURN, move |count| {
            operation()?;
            let stopwatch = Stopwatch::start();
            for _ in 0..count {
                operation()?;
            }
            Ok(stopwatch.read())
        })
    }

    /// What its turns took.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Finds the count of operations that fills a turn.
    fn warm_up(&mut self) -> Result<()> {
        // Until it has settled: caches, branch predictor, the peer's runtime.
        for _ in 0..4 {
            let took = (self.work)(self.per_turn)?.processor;
            let fill = self.turn.as_secs_f64() / took.as_secs_f64().max(1e-9);
            let wanted = f64::from(self.per_turn) * fill;
            self.per_turn = wanted.round().clamp(1.0, 1_000_000.0) as u32;
        }
        Ok(())
    }

    fn take_turn(&mut self) -> Result<()> {
        let took = (self.work)(self.per_turn)?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(self.per_turn);
        self.samples.clock.push(each(took.clock));
        self.samples.processor.push(each(took.processor));
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
        let steady = |each: Duration| {
            move |count| {
                Ok(Taken {
                    clock: each * count,
                    processor: each * count,
                })
            }
        };
        let mut both = [5, 10].map(|microseconds| {
            Contestant::new(OUR_TURN, steady(Duration::from_micros(microseconds)))
        });
        let rounds = run_rounds(&mut both, Duration::ZERO).unwrap();
        assert_eq!(rounds, 3);
        let [five, ten] = both.each_ref().map(|one| &one.samples().processor);
        assert_eq!(five.len(), 3);
        assert!((median_ratio(ten, five) - 2.0).abs() < 1e-9);
    }
}
