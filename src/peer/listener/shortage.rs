//! When the system has no file descriptors left: told once in a spell, not at each connection.

use std::{io, time::Duration};

use nix::errno::Errno;
use tokio::time::Instant;

/// How long nothing may be short before the next shortage is another one.
const SPELL: Duration = Duration::from_mins(1);

/// What is remembered of the last shortage.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    last: Option<Instant>,
}

impl Shortage {
    /// Tells whether an error begins a shortage.
    pub(super) fn begins(&mut self, error: &io::Error) -> bool {
        let code = error.raw_os_error().map(Errno::from_raw);
        if !matches!(code, Some(Errno::EMFILE | Errno::ENFILE)) {
            return false;
        }
        let now = Instant::now();
        let before = self.last.replace(now);
        before.is_none_or(|before| now > before + SPELL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shortage_is_told_once_in_a_spell() {
        let mut shortage = Shortage::default();
        let error = |errno: Errno| io::Error::from_raw_os_error(errno as i32);
        assert!(!shortage.begins(&error(Errno::ECONNABORTED)));
        assert!(shortage.begins(&error(Errno::EMFILE)));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(!shortage.begins(&error(Errno::EMFILE)));
        }
        tokio::time::sleep(SPELL * 2).await;
        assert!(shortage.begins(&error(Errno::ENFILE)));
    }
}
