//! Random bytes that are the same in the next run.

/// xorshift*: nothing secret comes of it.
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Another one, for whoever works beside us.
    pub(crate) fn next_noise(&mut self) -> Self {
        Self::new(self.next())
    }

    /// Less than `end`; 0 of nothing.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }

    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    /// The same with some bytes changed, cut off, doubled, or with a length that is not true.
    pub(crate) fn changed(&mut self, message: &[u8]) -> Vec<u8> {
        let mut changed = message.to_vec();
        match self.below(5) {
            0 => changed.truncate(self.below(message.len())),
            1 => changed.extend_from_within(self.below(message.len())..),
            2 if changed.len() > 4 => {
                for byte in &mut changed[..5] {
                    *byte = self.next() as u8;
                }
            }
            _ => {
                for _ in 0..=self.below(12) {
                    let at = self.below(changed.len());
                    if let Some(byte) = changed.get_mut(at) {
                        *byte = self.next() as u8;
                    }
                }
            }
        }
        changed
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_and_another_another() {
        let of = |seed| {
            (0..50)
                .map(|_| Noise::new(seed).changed(b"a message"))
                .next()
        };
        assert_eq!(of(1), of(1));
        let mut noise = Noise::new(2);
        let all: std::collections::BTreeSet<_> =
            (0..50).map(|_| noise.changed(b"a message")).collect();
        assert!(all.len() > 20);
        assert!((0..1000).all(|_| noise.below(7) < 7) && noise.below(0) == 0);
    }
}
