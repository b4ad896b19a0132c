//! Permutations as PyTorch draws them, so that a split of a task's inputs is the one of a published training.

/// Words of the generator's state.
const N: usize = 624;
/// How far apart the words are that a new one is made of.
const M: usize = 397;

/// The Mersenne Twister, MT19937: PyTorch's generator on the CPU.
///
/// Source: Matsumoto and Nishimura, "Mersenne Twister" (1998), with the initialisation of 2002.
struct MersenneTwister {
    state: [u32; N],
    at: usize,
}

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        MersenneTwister { state, at: N }
    }

    fn word(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let word = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if word & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (word >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut word = self.state[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }
}

/// The permutation that `torch.manual_seed(seed); torch.randperm(n)` gives on the CPU, of fewer than 2^32 numbers.
pub fn randperm(n: usize, seed: u32) -> Vec<usize> {
    let mut words = MersenneTwister::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..n.saturating_sub(1) {
        let other = i + words.word() as usize % (n - i);
        order.swap(i, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator's published first outputs of the seed 5489, and PyTorch 2.15's permutations.
    #[test]
    fn permutations_are_pytorchs() {
        let mut words = MersenneTwister::new(5489);
        assert_eq!(
            [words.word(), words.word(), words.word()],
            [3_499_211_612, 581_869_302, 3_890_346_734]
        );
        assert_eq!(randperm(10, 0), [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]);
        assert_eq!(randperm(12_769, 1)[..5], [984, 3756, 6851, 9169, 6197]);
        assert_eq!(randperm(0, 0), [0usize; 0]);
    }
}
