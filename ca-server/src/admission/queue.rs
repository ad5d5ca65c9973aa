//! The order in which work is done: by priority, and within one priority each caller in turn.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroUsize;

use super::Priority;

/// A bounded queue without threads or clocks.
pub(crate) struct FairQueue<T> {
    lines: BTreeMap<Priority, Line<T>>,
    of_caller: HashMap<String, usize>,
    len: usize,
    limit: usize,
    limit_of_one: usize,
}

/// One priority: callers in turn, each with its work in order.
struct Line<T> {
    turns: VecDeque<String>,
    work: HashMap<String, VecDeque<T>>,
}

/// There is no place for this work.
pub(crate) struct Refused<T>(pub(crate) T);

impl<T> FairQueue<T> {
    pub(crate) fn new(limit: NonZeroUsize, limit_of_one: NonZeroUsize) -> Self {
        Self {
            lines: BTreeMap::new(),
            of_caller: HashMap::new(),
            len: 0,
            limit: limit.get(),
            limit_of_one: limit_of_one.get(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds work, and returns what had to leave for it: the newest work of a lower priority.
    pub(crate) fn push(
        &mut self,
        priority: Priority,
        caller: &str,
        work: T,
    ) -> Result<Option<T>, Refused<T>> {
        if self
            .of_caller
            .get(caller)
            .is_some_and(|waiting| *waiting >= self.limit_of_one)
        {
            return Err(Refused(work));
        }
        let loser = if self.len < self.limit {
            None
        } else {
            let lowest = self.lines.keys().next_back().copied();
            match lowest
                .filter(|lowest| *lowest > priority)
                .and_then(|lowest| self.take_newest(lowest))
            {
                Some(loser) => Some(loser),
                None => return Err(Refused(work)),
            }
        };
        let line = self.lines.entry(priority).or_insert_with(|| Line {
            turns: VecDeque::new(),
            work: HashMap::new(),
        });
        let of_caller = line.work.entry(caller.to_owned()).or_default();
        if of_caller.is_empty() {
            line.turns.push_back(caller.to_owned());
        }
        of_caller.push_back(work);
        *self.of_caller.entry(caller.to_owned()).or_default() += 1;
        self.len += 1;
        Ok(loser)
    }

    /// The next work.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let priority = *self.lines.keys().next()?;
        let line = self.lines.get_mut(&priority)?;
        let caller = line.turns.pop_front()?;
        let of_caller = line.work.get_mut(&caller)?;
        let work = of_caller.pop_front();
        if of_caller.is_empty() {
            line.work.remove(&caller);
        } else {
            line.turns.push_back(caller.clone());
        }
        self.left(priority, &caller);
        work
    }

    fn take_newest(&mut self, priority: Priority) -> Option<T> {
        let line = self.lines.get_mut(&priority)?;
        let caller = line.turns.back()?.clone();
        let of_caller = line.work.get_mut(&caller)?;
        let work = of_caller.pop_back();
        if of_caller.is_empty() {
            line.work.remove(&caller);
            line.turns.pop_back();
        }
        self.left(priority, &caller);
        work
    }

    /// Nothing is kept for callers and priorities that have no work: memory stays as small as the queue.
    fn left(&mut self, priority: Priority, caller: &str) {
        self.len -= 1;
        if self
            .lines
            .get(&priority)
            .is_some_and(|line| line.turns.is_empty())
        {
            self.lines.remove(&priority);
        }
        if let Some(waiting) = self.of_caller.get_mut(caller) {
            *waiting -= 1;
            if *waiting == 0 {
                self.of_caller.remove(caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_popped_once_or_turned_away_and_nothing_is_left_behind() {
        let mut queue = FairQueue::new(
            NonZeroUsize::new(50).unwrap(),
            NonZeroUsize::new(20).unwrap(),
        );
        let (mut expected, mut turned_away) = (Vec::new(), Vec::new());
        // A fixed walk through priorities and callers, longer than the queue.
        for number in 0_usize..500 {
            let priority = [
                Priority::Routine,
                Priority::NoCertificate,
                Priority::Expiring,
            ][number * 7 % 3];
            let caller = ["a", "b", "c", "d", "e"][number * 11 % 5];
            expected.push(number);
            match queue.push(priority, caller, number) {
                Ok(loser) => turned_away.extend(loser),
                Err(Refused(number)) => turned_away.push(number),
            }
            if number % 3 == 0 {
                turned_away.extend(queue.pop());
            }
            assert!(queue.len() <= 50);
        }
        let mut all = turned_away;
        all.extend(std::iter::from_fn(|| queue.pop()));
        all.sort_unstable();
        assert_eq!(all, expected);
        assert!(queue.lines.is_empty() && queue.of_caller.is_empty() && queue.len() == 0);
    }
}
