//! The durable backend: one SQLite file, one connection, one transaction for each batch.

use super::{Backend, Change, Current, Loaded, Operation};
use crate::kubeapi::Error;
use rusqlite::{Connection, ErrorCode, params};
use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const LAYOUT: &str = "
create table if not exists log (rv integer primary key, key text not null, op text not null, obj blob not null);
create table if not exists cur (key text primary key, rv integer not null, obj blob not null) without rowid;
create table if not exists meta (name text primary key, value integer not null) without rowid;
insert or ignore into meta values ('layout', 1), ('revision', 0), ('compacted', 0);
";

/// A store in a file that no other process may open meanwhile.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
}

struct LogRow {
    revision: u64,
    key: String,
    word: String,
    object: Vec<u8>,
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
        let store = Self { path, connection };
        store.prepare().map_err(|error| store.explain(&error))?;
        store.check()?;
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
        let layout = self.number("layout")?;
        if layout != 1 {
            return Err(self.damaged(format!("its layout {layout} is of another version")));
        }
        Ok(())
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

    fn objects(&self) -> rusqlite::Result<Vec<Current>> {
        let mut query = self.connection.prepare("select key, rv, obj from cur")?;
        let rows = query.query_map([], |row| {
            Ok(Current {
                key: row.get(0)?,
                revision: row.get::<_, i64>(1)?.unsigned_abs(),
                object: row.get(2)?,
            })
        })?;
        rows.collect()
    }

    fn log(&self) -> rusqlite::Result<Vec<LogRow>> {
        let mut query = self
            .connection
            .prepare("select rv, key, op, obj from log order by rv")?;
        let rows = query.query_map([], |row| {
            Ok(LogRow {
                revision: row.get::<_, i64>(0)?.unsigned_abs(),
                key: row.get(1)?,
                word: row.get(2)?,
                object: row.get(3)?,
            })
        })?;
        rows.collect()
    }

    fn write(&mut self, batch: &[Change]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut log = transaction
                .prepare_cached("insert into log (rv, key, op, obj) values (?, ?, ?, ?)")?;
            let mut put = transaction
                .prepare_cached("insert or replace into cur (key, rv, obj) values (?, ?, ?)")?;
            let mut remove = transaction.prepare_cached("delete from cur where key = ?")?;
            let mut reached =
                transaction.prepare_cached("update meta set value = ? where name = 'revision'")?;
            for change in batch {
                let revision = change.revision.cast_signed();
                log.execute(params![
                    revision,
                    change.key,
                    change.operation.as_str(),
                    change.object
                ])?;
                if change.operation == Operation::Deleted {
                    remove.execute([&change.key])?;
                } else {
                    put.execute(params![change.key, revision, change.object])?;
                }
            }
            if let Some(last) = batch.last() {
                reached.execute([last.revision.cast_signed()])?;
            }
        }
        transaction.commit()
    }

    fn forget(&mut self, through: u64) -> rusqlite::Result<()> {
        let through = through.cast_signed();
        let transaction = self.connection.transaction()?;
        transaction.execute("delete from log where rv <= ?", [through])?;
        transaction.execute(
            "update meta set value = max(value, ?) where name = 'compacted'",
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
        let revision = self.number("revision")?;
        let compacted = self.number("compacted")?;
        let objects = self.objects().map_err(|error| self.explain(&error))?;
        if let Some(beyond) = objects.iter().find(|object| object.revision > revision) {
            let reason = format!("{} is newer than the store itself", beyond.key);
            return Err(self.damaged(reason));
        }
        let mut log = Vec::new();
        for row in self.log().map_err(|error| self.explain(&error))? {
            let operation = Operation::parse(&row.word).ok_or_else(|| {
                self.damaged(format!("change {} is called {}", row.revision, row.word))
            })?;
            log.push(Change {
                revision: row.revision,
                key: row.key,
                operation,
                object: row.object,
            });
        }
        for (key, object) in objects
            .iter()
            .map(|current| (&current.key, &current.object))
            .chain(log.iter().map(|change| (&change.key, &change.object)))
        {
            serde_json::from_slice::<serde::de::IgnoredAny>(object)
                .map_err(|error| self.damaged(format!("{key} is no JSON: {error}")))?;
        }
        Ok(Loaded {
            revision,
            compacted,
            objects,
            log,
        })
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
        })
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
