//! The durable backend: one SQLite file, one connection, one transaction for each batch.

use super::{Backend, Change, Current, Loaded, Operation};
use crate::kubeapi::Error;
use axum::body::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::{
    collections::HashMap,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What the tables are: `log` has the kept changes and, for ever, the last change of each object
/// that is there; `cur` says which those are.
const LAYOUT: &str = "
create table if not exists log (rv integer primary key, key text not null, op text not null, obj blob not null);
create table if not exists cur (key text primary key, rv integer not null) without rowid;
create table if not exists meta (name text primary key, value integer not null) without rowid;
insert or ignore into meta values ('layout', 2), ('revision', 0), ('compacted', 0);
";

/// From the layout in which `cur` had a copy of each object.
const FROM_LAYOUT_1: &str = "
insert or ignore into log select rv, key, 'MODIFIED', obj from cur;
create table fresh (key text primary key, rv integer not null) without rowid;
insert into fresh select key, rv from cur;
drop table cur;
alter table fresh rename to cur;
update meta set value = 2 where name = 'layout';
";

/// A store in a file that no other process may open meanwhile.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
    /// Up to here the log has only what is still there.
    compacted: u64,
}

struct LogRow {
    revision: u64,
    key: String,
    word: String,
    object: Bytes,
}

impl Sqlite {
    /// Opens or creates the file, takes it for this process alone and checks it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_path_buf();
        // Secrets are in it. SQLite gives its other files the same rights.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::file("open", &path, error))?;
        let connection = Connection::open(&path).map_err(|error| explain(&path, &error))?;
        let mut store = Self {
            path,
            connection,
            compacted: 0,
        };
        store.prepare().map_err(|error| store.explain(&error))?;
        store.check()?;
        store.compacted = store.number("compacted")?;
        Ok(store)
    }

    fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(std::time::Duration::ZERO)?;
        self.connection
            .pragma_update(None, "locking_mode", "exclusive")?;
        self.connection.pragma_update(None, "journal_mode", "wal")?;
        self.connection.pragma_update(None, "synchronous", "full")?;
        self.connection.pragma_update(None, "cache_size", -4096)?;
        self.connection
            .execute_batch(&format!("begin immediate; {LAYOUT} commit;"))
    }

    fn check(&self) -> Result<(), Error> {
        let verdict: String = self
            .connection
            .query_row("pragma quick_check(1)", [], |row| row.get(0))
            .map_err(|error| self.explain(&error))?;
        if verdict != "ok" {
            return Err(self.damaged(verdict));
        }
        match self.number("layout")? {
            1 => self
                .connection
                .execute_batch(&format!("begin immediate; {FROM_LAYOUT_1} commit;"))
                .map_err(|error| self.explain(&error)),
            2 => Ok(()),
            layout => Err(self.damaged(format!("its layout {layout} is of another version"))),
        }
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

    /// The revision of each object that is there.
    fn current(&self) -> rusqlite::Result<HashMap<String, u64>> {
        let mut query = self.connection.prepare("select key, rv from cur")?;
        let rows = query.query_map([], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
        })?;
        rows.collect()
    }

    /// Calls `visit` with every row of the log, oldest first.
    fn each_row(&self, mut visit: impl FnMut(LogRow) -> Result<(), Error>) -> Result<(), Error> {
        let explain = |error: rusqlite::Error| self.explain(&error);
        let mut query = self
            .connection
            .prepare("select rv, key, op, obj from log order by rv")
            .map_err(explain)?;
        let mut rows = query.query([]).map_err(explain)?;
        while let Some(row) = rows.next().map_err(explain)? {
            let read = || -> rusqlite::Result<LogRow> {
                Ok(LogRow {
                    revision: row.get::<_, i64>(0)?.unsigned_abs(),
                    key: row.get(1)?,
                    word: row.get(2)?,
                    object: row.get::<_, Vec<u8>>(3)?.into(),
                })
            };
            visit(read().map_err(explain)?)?;
        }
        Ok(())
    }

    fn write(&mut self, batch: &[Change]) -> rusqlite::Result<()> {
        let compacted = self.compacted.cast_signed();
        let transaction = self.connection.transaction()?;
        {
            let mut log = transaction
                .prepare_cached("insert into log (rv, key, op, obj) values (?, ?, ?, ?)")?;
            let mut known = transaction.prepare_cached("select rv from cur where key = ?")?;
            let mut put =
                transaction.prepare_cached("insert or replace into cur (key, rv) values (?, ?)")?;
            let mut remove = transaction.prepare_cached("delete from cur where key = ?")?;
            let mut forget = transaction.prepare_cached("delete from log where rv = ?")?;
            for change in batch {
                let revision = change.revision.cast_signed();
                let key = &change.key;
                let before: Option<i64> = known.query_row([key], |row| row.get(0)).optional()?;
                if let Some(before) = before.filter(|before| *before <= compacted) {
                    forget.execute([before])?;
                }
                let word = change.operation.as_str();
                log.execute(params![revision, key, word, &change.object[..]])?;
                if change.operation == Operation::Deleted {
                    remove.execute([key])?;
                } else {
                    put.execute(params![key, revision])?;
                }
            }
        }
        transaction.commit()
    }

    fn forget(&mut self, through: u64) -> rusqlite::Result<()> {
        let (from, through) = (self.compacted.cast_signed(), through.cast_signed());
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "delete from log where rv > ? and rv <= ?
             and not exists (select 1 from cur where cur.key = log.key and cur.rv = log.rv)",
            [from, through],
        )?;
        transaction.execute(
            "update meta set value = max(value, ?) where name in ('revision', 'compacted')",
            [through],
        )?;
        transaction.commit()
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
        let mut current = self.current().map_err(|error| self.explain(&error))?;
        self.each_row(|row| {
            let LogRow {
                revision,
                key,
                word,
                object,
            } = row;
            serde_json::from_slice::<serde::de::IgnoredAny>(&object)
                .map_err(|error| self.damaged(format!("{key} is no JSON: {error}")))?;
            let operation = Operation::parse(&word)
                .ok_or_else(|| self.damaged(format!("change {revision} is called {word}")))?;
            loaded.revision = loaded.revision.max(revision);
            if current.get(&key) == Some(&revision) {
                current.remove(&key);
                loaded.objects.push(Current {
                    key: key.clone(),
                    revision,
                    object: object.clone(),
                });
            }
            if revision > loaded.compacted {
                loaded.log.push(Change {
                    revision,
                    key,
                    operation,
                    object,
                });
            }
            Ok(())
        })?;
        match current.iter().next() {
            Some((key, revision)) => {
                Err(self.damaged(format!("change {revision} of {key} is not there")))
            }
            None => Ok(loaded),
        }
    }

    fn commit(&mut self, batch: &[Change]) -> Result<(), Error> {
        self.write(batch).map_err(|error| Error::Write {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    fn compact(&mut self, through: u64) -> Result<(), Error> {
        self.forget(through).map_err(|error| Error::Write {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        self.compacted = self.compacted.max(through);
        Ok(())
    }
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
