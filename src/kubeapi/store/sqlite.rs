//! The durable backend: one SQLite file, one transaction for each batch.

mod journal;

use super::{Backend, Change, Current, Loaded, Operation};
use crate::kubeapi::Error;
use journal::Journal;
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What the tables are: `log` has the kept changes and, for ever, the last change of each object
/// that is there.
const LAYOUT: &str = "
create table if not exists log (rv integer primary key, key text not null, op text not null, obj blob not null);
create table if not exists meta (name text primary key, value integer not null) without rowid;
insert or ignore into meta values ('layout', 3), ('revision', 0), ('compacted', 0);
";

/// From the layout in which a table `cur` had a copy of each object to that in which it only said
/// which change was the last one.
const FROM_LAYOUT_1: &str = "insert or ignore into log select rv, key, 'MODIFIED', obj from cur;";

/// From the layout that had this table.
const FROM_LAYOUT_2: &str = "drop table cur; update meta set value = 3 where name = 'layout';";

const FORGET: &str = "delete from log where rv = ?";

/// A store in a file that no other process may open meanwhile.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    // In this order they are closed.
    journal: Journal,
    connection: Connection,
    /// Locked as long as it is open; the system unlocks it when the process ends in any way.
    _keeper: File,
    /// Up to here the log has only what is still there.
    compacted: u64,
    /// The changes after that which later ones replaced; they are kept for the watches.
    replaced: BTreeSet<u64>,
}

/// A row of the log: revision, key, word and object.
type Row = (i64, String, String, Vec<u8>);

impl Sqlite {
    /// Opens or creates the file, takes it for this process alone and checks it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_path_buf();
        let keeper = take(&path)?;
        // Secrets are in it. SQLite gives its other files the same rights.
        private(&path).map_err(|error| Error::file("open", &path, error))?;
        let wrong = |error: rusqlite::Error| explain(&path, &error);
        let connection = connect(&path).map_err(wrong)?;
        prepare(&connection).map_err(wrong)?;
        let copier = connect(&path).map_err(wrong)?;
        let mut store = Self {
            journal: Journal::open(&path, copier)?,
            path,
            connection,
            _keeper: keeper,
            compacted: 0,
            replaced: BTreeSet::new(),
        };
        store.check()?;
        store.compacted = store.number("compacted")?;
        Ok(store)
    }

    /// Leaves a transaction open, as a failed rollback does.
    #[cfg(test)]
    pub(super) fn leave_open(&self, statement: &str) {
        let statements = format!("begin immediate; {statement}");
        self.connection.execute_batch(&statements).unwrap();
    }

    fn check(&self) -> Result<(), Error> {
        let verdict: String = self
            .connection
            .query_row("pragma quick_check(1)", [], |row| row.get(0))
            .map_err(|error| self.explain(&error))?;
        if verdict != "ok" {
            return Err(self.damaged(verdict));
        }
        let steps = match self.number("layout")? {
            1 => [FROM_LAYOUT_1, FROM_LAYOUT_2].concat(),
            2 => FROM_LAYOUT_2.to_owned(),
            3 => return Ok(()),
            layout => {
                return Err(self.damaged(format!("its layout {layout} is of another version")));
            }
        };
        self.connection
            .execute_batch(&format!("begin immediate; {steps} commit;"))
            .map_err(|error| self.explain(&error))
    }

    fn number(&self, name: &str) -> Result<u64, Error> {
        let value: i64 = self
            .connection
            .query_row("select value from meta where name = ?", [name], |row| {
                row.get(0)
            })
            .map_err(|error| self.explain(&error))?;
        u64::try_from(value).map_err(|_| self.damaged(format!("meta {name} is {value}")))
    }

    /// Calls `visit` with every change in the log, oldest first.
    fn each_change(&self, mut visit: impl FnMut(Change)) -> Result<(), Error> {
        let explain = |error: rusqlite::Error| self.explain(&error);
        let mut query = self
            .connection
            .prepare("select rv, key, op, obj from log order by rv")
            .map_err(explain)?;
        let mut rows = query.query([]).map_err(explain)?;
        while let Some(row) = rows.next().map_err(explain)? {
            visit(self.change(row.try_into().map_err(explain)?)?);
        }
        Ok(())
    }

    fn write(&self, batch: &[Change], forget: u64) -> rusqlite::Result<()> {
        let run = |statement| {
            let mut statement = self.connection.prepare_cached(statement)?;
            statement.execute([]).map(drop)
        };
        if !self.connection.is_autocommit() {
            // What failed before could not be rolled back then.
            run("rollback")?;
        }
        self.journal.tend(&self.connection)?;
        run("begin immediate")?;
        let outcome = self.fill(batch, forget).and_then(|()| run("commit"));
        if outcome.is_err() && !self.connection.is_autocommit() {
            run("rollback")?;
        }
        outcome
    }

    /// Writes the changes into an open transaction.
    fn fill(&self, batch: &[Change], forget: u64) -> rusqlite::Result<()> {
        put(&self.connection, batch, self.compacted)?;
        if forget > self.compacted {
            let replaced = self.replaced.range(..=forget).copied();
            shorten(&self.connection, replaced, forget)?;
        }
        Ok(())
    }

    /// Reads a row as the change that it is, of which it is not known yet what it replaces.
    fn change(&self, (revision, key, word, object): Row) -> Result<Change, Error> {
        let revision = revision.unsigned_abs();
        serde_json::from_slice::<serde::de::IgnoredAny>(&object)
            .map_err(|error| self.damaged(format!("{key} is no JSON: {error}")))?;
        let operation = Operation::parse(&word)
            .ok_or_else(|| self.damaged(format!("change {revision} is called {word}")))?;
        Ok(Change {
            revision,
            key,
            operation,
            object: object.into(),
            replaces: None,
        })
    }

    fn explain(&self, error: &rusqlite::Error) -> Error {
        explain(&self.path, error)
    }

    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }
}

impl Backend for Sqlite {
    fn load(&mut self) -> Result<Loaded, Error> {
        let mut loaded = Loaded {
            revision: self.number("revision")?,
            compacted: self.number("compacted")?,
            ..Loaded::default()
        };
        let mut standing: BTreeMap<String, Current> = BTreeMap::new();
        let mut replaced = BTreeSet::new();
        self.each_change(|mut change| {
            loaded.revision = loaded.revision.max(change.revision);
            let before = standing.remove(&change.key);
            change.replaces = before.map(|before| before.revision);
            if change.operation != Operation::Deleted {
                let current = Current {
                    key: change.key.clone(),
                    revision: change.revision,
                    object: change.object.clone(),
                };
                standing.insert(change.key.clone(), current);
            }
            note(&change, &mut replaced);
            if change.revision > loaded.compacted {
                loaded.log.push(change);
            }
        })?;
        loaded.objects = standing.into_values().collect();
        self.replaced = replaced;
        Ok(loaded)
    }

    fn commit(&mut self, batch: &[Change], forget: u64) -> Result<(), Error> {
        self.write(batch, forget).map_err(|error| Error::Write {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        if forget > self.compacted {
            self.compacted = forget;
            self.replaced = self.replaced.split_off(&(forget + 1));
        }
        for change in batch {
            note(change, &mut self.replaced);
        }
        Ok(())
    }
}

/// Keeps in mind what a change replaced.
fn note(change: &Change, replaced: &mut BTreeSet<u64>) {
    replaced.extend(change.replaces);
    if change.operation == Operation::Deleted {
        replaced.insert(change.revision);
    }
}

/// Takes a store for this process alone.
fn take(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let wrong = |error| Error::file("lock", &name, error);
    let keeper = private(&name).map_err(wrong)?;
    match keeper.try_lock() {
        Ok(()) => Ok(keeper),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) => Err(wrong(error)),
    }
}

/// Opens or creates a file for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// Opens a connection; all connections of this process together keep the others away.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix-excl")?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    connection.pragma_update(None, "synchronous", "full")?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(
        None,
        "journal_size_limit",
        journal::MOST_BYTES.cast_signed(),
    )?;
    // The journal has a thread for it.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -4096)?;
    connection.execute_batch(&format!("begin immediate; {LAYOUT} commit;"))
}

/// Adds changes to the log, and takes from it what they replace and no watch can ask for any more.
fn put(connection: &Connection, batch: &[Change], compacted: u64) -> rusqlite::Result<()> {
    let mut log =
        connection.prepare_cached("insert into log (rv, key, op, obj) values (?, ?, ?, ?)")?;
    let mut forget = connection.prepare_cached(FORGET)?;
    for change in batch {
        if let Some(before) = change.replaces.filter(|before| *before <= compacted) {
            forget.execute([before.cast_signed()])?;
        }
        let (revision, word) = (change.revision.cast_signed(), change.operation.as_str());
        log.execute(params![revision, change.key, word, &change.object[..]])?;
    }
    Ok(())
}

/// Takes from the log what was replaced and is older.
fn shorten(
    connection: &Connection,
    replaced: impl Iterator<Item = u64>,
    through: u64,
) -> rusqlite::Result<()> {
    let mut forget = connection.prepare_cached(FORGET)?;
    for revision in replaced {
        forget.execute([revision.cast_signed()])?;
    }
    let mut note = connection.prepare_cached(
        "update meta set value = max(value, ?) where name in ('revision', 'compacted')",
    )?;
    note.execute([through.cast_signed()])?;
    Ok(())
}

fn explain(path: &Path, error: &rusqlite::Error) -> Error {
    let path = path.to_path_buf();
    let reason = error.to_string();
    let code = error.sqlite_error_code();
    if matches!(
        code,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    ) {
        Error::InUse { path }
    } else if matches!(
        code,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || code.is_none()
    {
        Error::Damaged { path, reason }
    } else {
        Error::Open { path, reason }
    }
}
