//! Lines on their way to standard error: a thread of their own writes them, so that whoever reads
//! them slowly, or not at all, holds up nobody else.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How many bytes may wait. What is more is lost, and counted.
const LIMIT: usize = 1 << 20;

/// A queue of lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    lost: u64,
    is_writing: bool,
}

impl Queue {
    /// Starts the thread that writes.
    pub(super) fn start(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self::default();
        let lines = queue.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || lines.write_to(writer))?;
        Ok(queue)
    }

    /// Waits until everything is written, as long as that.
    pub(super) fn flush(&self, limit: Duration) {
        let state = self.lock();
        let waited = self.0.emptied.wait_timeout_while(state, limit, |state| {
            state.is_writing || !state.lines.is_empty()
        });
        drop(waited);
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.bytes + line.len() > LIMIT {
            state.lost += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        drop(state);
        self.0.filled.notify_one();
    }

    fn write_to(&self, mut writer: impl Write) {
        loop {
            let (lines, lost) = self.take();
            for line in lines {
                // There is nowhere to complain.
                drop(writer.write_all(&line));
            }
            let mut state = self.lock();
            state.is_writing = false;
            drop(state);
            if lost > 0 {
                tracing::warn!(lost, "Lines of the log were lost, since nobody read them");
            }
            self.0.emptied.notify_all();
        }
    }

    /// Waits for lines and takes them all, and how many were lost behind them.
    fn take(&self) -> (VecDeque<Vec<u8>>, u64) {
        let state = self.lock();
        let filled = self.0.filled.wait_while(state, |it| it.lines.is_empty());
        let mut state = filled.unwrap_or_else(PoisonError::into_inner);
        state.bytes = 0;
        state.is_writing = true;
        let lost = std::mem::take(&mut state.lost);
        (std::mem::take(&mut state.lines), lost)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes nothing before it is told to.
    struct Blocked {
        release: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.release.recv();
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_nobody_reads_hold_up_nobody_and_are_bounded() {
        let (open, release) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut queue = Queue::start(Blocked {
            release,
            written: Arc::clone(&written),
        })
        .unwrap();
        let line = [b'x'; 1024];
        queue.write_all(&line).unwrap();
        while !queue.lock().is_writing {
            thread::yield_now();
        }
        for _ in 0..4 * LIMIT / line.len() {
            queue.write_all(&line).unwrap();
        }
        assert!(queue.lock().bytes <= LIMIT);
        assert!(queue.lock().lost > 0);
        drop(open);
        queue.flush(Duration::from_mins(1));
        let bytes = written.lock().unwrap().len();
        assert!((LIMIT..=2 * LIMIT).contains(&bytes), "{bytes}");
        queue.write_all(b"last\n").unwrap();
        queue.flush(Duration::from_mins(1));
        assert!(written.lock().unwrap().ends_with(b"last\n"));
    }
}
