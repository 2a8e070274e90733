//! Random bytes from the operating system, good enough for keys.

use std::io;

/// Returns `N` bytes from the kernel's random generator. Blocks only before it is seeded at boot.
///
/// Fails only if the system call itself is refused; there is no weaker source to fall back to.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no random bytes: {e}")))?;
    Ok(bytes)
}

/// Returns a random name of 32 hex digits.
pub(super) fn random_name() -> io::Result<String> {
    Ok(format!("{:032x}", u128::from_le_bytes(random_bytes()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let a = random_bytes::<32>().expect("draw");
        let b = random_bytes::<32>().expect("draw");
        assert_ne!(a, b);
        assert_eq!(random_name().expect("draw").len(), 32);
    }
}
