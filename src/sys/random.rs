//! Random bytes of the operating system, good enough for keys.

use std::io;

/// Returns `N` bytes from the kernel's random generator; blocks only before it is seeded at boot.
///
/// Fails only where the system call itself is refused; there is no weaker source to fall back on.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no random bytes: {e}")))?;
    Ok(bytes)
}

/// A random name of 32 hex digits.
pub(super) fn random_name() -> io::Result<String> {
    Ok(format!("{:032x}", u128::from_le_bytes(random_bytes()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let (a, b) = (
            random_bytes::<32>().expect("draw"),
            random_bytes::<32>().expect("draw"),
        );
        assert_ne!(a, b);
        assert_eq!(random_name().expect("draw").len(), 32);
    }
}
