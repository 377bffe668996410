//! Questions whose answer is not shown: passphrases and tokens.

use std::{
    io::{self, IsTerminal as _, StdinLock},
    thread,
};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::{Failure, output};

/// Lets `read` have standard input. A person is told `what` is wanted, and what they type is not shown.
/// A signal ends the question with the terminal as it was.
pub(super) async fn ask<T: Send + 'static>(
    what: &str,
    read: impl FnOnce(StdinLock<'static>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if !is_person() {
        return read(io::stdin().lock());
    }
    let refuse = |why: &str| Failure::NotSo(format!("cannot ask for {what}: {why}"));
    let listen = |kind| signal(kind).map_err(|error| refuse(&error.to_string()));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    output::remark(&format!("{what}:"));
    let _hidden = Hidden::begin();
    let (tell, told) = oneshot::channel();
    // When a signal came it still waits for a line, which must not hold up the end.
    thread::spawn(move || tell.send(read(io::stdin().lock())));
    let signalled = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    tokio::select! {
        answer = told => answer.map_err(|error| refuse(&error.to_string()))?,
        () = signalled => Err(Failure::NotSo("interrupted: nothing was done".to_owned())),
    }
}

/// Whether a person is asked.
pub(super) fn is_person() -> bool {
    io::stdin().is_terminal()
}

/// A terminal that does not show what is typed. It is as it was when this is dropped.
struct Hidden(Termios);

impl Hidden {
    /// Hides what is typed. A terminal that cannot hide it still takes it.
    fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to show.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}
