//! The write-ahead log of the file: what is in it is copied into the file beside the writes.
//!
//! ```text
//! writer   --- appends, waits for the disk ---> store.db-wal
//! copier   <-- wakes it when much has come          |
//!          --- copies, waits for the disk ----------+--> store.db
//! ```
//!
//! When all is copied, the next write begins the log at its start again. A writer that never rests
//! is always ahead of the copier, so it waits for it when the log has become too long.

use crate::kubeapi::Error;
use rusqlite::Connection;
use std::{
    cell::Cell,
    fs::{self, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

/// How many pages of the log are left uncopied: 4 MB.
const COPY_FROM: u64 = 1_000;

/// At how many pages the writer waits until all are copied: 16 MB. Longer would be rarer, but a
/// start after a crash reads it, and it stays on the disk.
const LONGEST: u64 = 4_000;

/// What a page takes in the log, with its head.
const PAGE: u64 = 4_096 + 24;

/// What is left of a log that one large transaction has made longer still.
pub(super) const MOST_BYTES: u64 = (LONGEST + COPY_FROM) * PAGE;

/// By how much the log grows. The disk needs much longer to find a place for a write than to put
/// it where there was one; so places are made for many writes at once.
const ROOM: u64 = 1_024 * 1_024;

/// Looks after the log.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    copier: Arc<Mutex<Connection>>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Up to where there is room, in bytes.
    room: Cell<u64>,
}

impl Journal {
    /// Takes over the log of this file; `copier` is a connection to it that nobody else uses.
    pub(super) fn open(file: &Path, copier: Connection) -> Result<Self, Error> {
        let copier = Arc::new(Mutex::new(copier));
        let (wake, woken) = sync_channel(1);
        let theirs = Arc::clone(&copier);
        let thread = std::thread::Builder::new()
            .name("kubeapi-copier".to_owned())
            .spawn(move || work(&theirs, &woken))
            .map_err(Error::Thread)?;
        let mut path = file.as_os_str().to_owned();
        path.push("-wal");
        let journal = Self {
            path: path.into(),
            copier,
            wake: Some(wake),
            thread: Some(thread),
            room: Cell::new(0),
        };
        journal.make_room(0);
        Ok(journal)
    }

    /// Does before a write what should not be done during it.
    pub(super) fn tend(&self, writer: &Connection) -> rusqlite::Result<()> {
        let (length, copied) = writer
            .prepare_cached("pragma wal_checkpoint(noop)")?
            .query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
            .map(|(length, copied): (i64, i64)| (length.unsigned_abs(), copied.unsigned_abs()))?;
        if length >= LONGEST && copied < length {
            copy(&lock(&self.copier));
        } else if length - copied >= COPY_FROM
            && let Some(wake) = &self.wake
        {
            // When it is full, the copier has not begun with what it was woken for before.
            let _ = wake.try_send(());
        }
        self.make_room(length);
        Ok(())
    }

    /// Makes the log longer ahead of its writer; its zeros are no page of it.
    fn make_room(&self, length: u64) {
        let least = length * PAGE + ROOM / 2;
        if least <= self.room.get() {
            return;
        }
        match lengthen(&self.path, least) {
            Ok(length) => self.room.set(length),
            // A write that needs the room will tell its client.
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "Could not make room for writes");
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.wake.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn work(copier: &Mutex<Connection>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        copy(&lock(copier));
    }
}

fn lock(copier: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    copier.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies what is in the log by now.
fn copy(connection: &Connection) {
    let copied = connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(()));
    if let Err(error) = copied {
        tracing::warn!(%error, "Could not copy the log of the store into its file");
    }
}

/// Adds zeros to a file that is shorter than this; returns how long it is then.
fn lengthen(path: &Path, least: u64) -> io::Result<u64> {
    let standing = fs::metadata(path)?.len();
    if standing >= least {
        return Ok(standing);
    }
    let mut file = OpenOptions::new().append(true).open(path)?;
    if let Err(error) = io::copy(&mut io::repeat(0).take(ROOM), &mut file) {
        // What is left of a full disk is for the writes themselves.
        file.set_len(standing)?;
        return Err(error);
    }
    Ok(standing + ROOM)
}
