//! What must hold of every store, and of the one on disk.

use super::*;
use crate::kubeapi::Clock;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open(Box::new(Sqlite::open(&path).unwrap()));
    for number in 0..50 {
        let written = store.write(create(&format!("g/kinds//o{number}"))).await;
        assert!(written.is_ok());
    }
    let crashed = directory.path().join("crashed.db");
    for end in ["", "-wal"] {
        let name = |base: &Path| format!("{}{end}", base.display());
        fs::copy(name(&path), name(&crashed)).unwrap();
    }
    let again = open(Box::new(Sqlite::open(&crashed).unwrap()));
    assert_eq!(again.revision(), 50);
    assert_eq!(again.list("g/kinds/", None).0.len(), 50);
    let resumed = again.subscribe("g/kinds/", Start::After(48)).unwrap();
    assert_eq!(resumed.backlog.len(), 2);
}

#[tokio::test]
async fn many_writers_get_one_revision_each() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = Arc::new(open(Box::new(Sqlite::open(&path).unwrap())));
    let writers = (0..200).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.write(create(&format!("g/kinds//o{number}"))).await })
    });
    let mut revisions = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        revisions.push(writer.await.unwrap().unwrap().revision);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_dependent_is_looked_at_after_the_first_that_will_do() {
    let store = open(Box::new(Memory::default()));
    for number in 0..100 {
        let mut write = create(&format!("g/kinds//o{number}"));
        write.object["metadata"]["ownerReferences"] = json!([{"uid": "1"}]);
        assert!(store.write(write).await.is_ok());
    }
    let looked = AtomicUsize::new(0);
    let look = |such| {
        looked.fetch_add(1, Ordering::Relaxed);
        such
    };
    assert!(store.any_dependent("1", |_| look(true)));
    assert_eq!(looked.swap(0, Ordering::Relaxed), 1);
    assert!(!store.any_dependent("1", |_| look(false)));
    assert_eq!(looked.swap(0, Ordering::Relaxed), 100);
    assert!(!store.any_dependent("2", |_| look(true)));
    assert_eq!(looked.load(Ordering::Relaxed), 0);
}

/// A backend that waits for a word before its first commit, and counts them.
struct Slow {
    memory: Memory,
    go: std::sync::mpsc::Receiver<()>,
    commits: Arc<AtomicUsize>,
}

impl Backend for Slow {
    fn load(&mut self) -> Result<Loaded, Error> {
        self.memory.load()
    }

    fn commit(&mut self, batch: &[Change], forget: u64) -> Result<(), Error> {
        if self.commits.fetch_add(1, Ordering::Relaxed) == 0 {
            let _ = self.go.recv();
        }
        self.memory.commit(batch, forget)
    }
}

#[tokio::test]
async fn writes_that_wait_for_a_commit_share_the_next_one() {
    let commits = Arc::new(AtomicUsize::new(0));
    let (word, go) = std::sync::mpsc::channel();
    let slow = Slow {
        memory: Memory::default(),
        go,
        commits: Arc::clone(&commits),
    };
    let store = Arc::new(open(Box::new(slow)));
    let mut writers: Vec<_> = (0..200)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.write(create(&format!("g/kinds//o{number}"))).await })
        })
        .collect();
    // All of them have asked once the last one waits.
    while commits.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..writers.len() {
        tokio::task::yield_now().await;
    }
    word.send(()).unwrap();
    for writer in writers.drain(..) {
        writer.await.unwrap().unwrap();
    }
    let commits = commits.load(Ordering::Relaxed);
    assert!(commits <= 3, "{commits} commits for 200 writes");
}

#[tokio::test]
async fn of_two_writes_from_one_state_one_is_stale() {
    let store = open(Box::new(Memory::default()));
    store.write(create("g/kinds//o")).await.unwrap();
    let change = || Write {
        expected: Expectation::Revision(1),
        ..create("g/kinds//o")
    };
    let outcomes = [store.write(change()).await, store.write(change()).await];
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1].as_ref().unwrap_err(), &Rejected::Stale);
    let again = store.write(create("g/kinds//o")).await;
    assert_eq!(again.unwrap_err(), Rejected::Stale);
}

#[tokio::test]
async fn a_watcher_that_stops_reading_is_cut_off() {
    let store = open(Box::new(Memory::default()));
    let mut watched = store.subscribe("g/", Start::Now).unwrap();
    for number in 0..2_000 {
        store
            .write(create(&format!("g/kinds//o{number}")))
            .await
            .unwrap();
    }
    let mut seen = 0;
    while let Some(event) = watched.events.next().await {
        seen += 1;
        assert_eq!(event.revision, seen);
    }
    assert!(seen < 2_000);
    let resumed = store.subscribe("g/", Start::After(seen)).unwrap();
    assert_eq!(resumed.backlog.front().unwrap().revision, seen + 1);
}

#[tokio::test]
async fn a_watcher_keeps_no_more_bytes_than_the_log() {
    let store = open(Box::new(Memory::default()));
    let mut watched = store.subscribe("g/", Start::Now).unwrap();
    let mut reader = store.subscribe("g/", Start::Now).unwrap();
    for number in 0..40 {
        let mut write = create(&format!("g/kinds//o{number}"));
        write.object["data"] = json!("x".repeat(1_000_000));
        let stored = store.write(write).await.unwrap();
        assert_eq!(
            reader.events.next().await.unwrap().revision,
            stored.revision
        );
    }
    assert!(watched.events.next().await.is_none());
    assert!(watched.events.has_ended() && !reader.events.has_ended());
}

#[tokio::test]
async fn a_page_shows_the_moment_that_is_asked_for() {
    let store = open(Box::new(Memory::default()));
    for name in ["a", "b", "c"] {
        let key = format!("g/kinds//{name}");
        store.write(create(&key)).await.unwrap();
    }
    let shown = |after, revision| {
        let (found, rest, at) = store.page("g/", after, 1, revision)?;
        Some((found.last()?.0.clone(), rest, at))
    };
    let page = |name: &str, rest, at| Some((format!("g/kinds//{name}"), rest, at));
    assert_eq!(shown(None, Some(2)), page("a", 1, 2));
    assert_eq!(shown(Some("g/kinds//a"), Some(2)), page("b", 0, 2));
    for now in [None, Some(3)] {
        assert_eq!(shown(Some("g/kinds//a"), now), page("b", 1, 3));
    }
    assert_eq!(shown(Some("g/kinds//b"), Some(2)), None);
}

#[tokio::test]
async fn the_log_keeps_a_bounded_past() {
    let store = open(Box::new(Memory::default()));
    let total = LOG_LENGTH as u64 + 10;
    for number in 0..total {
        store
            .write(create(&format!("g/kinds//o{number}")))
            .await
            .unwrap();
    }
    assert_eq!(store.compacted(), 10);
    assert!(store.subscribe("g/", Start::After(9)).is_none());
    assert!(store.subscribe("g/", Start::After(10)).is_some());
}

#[test]
fn a_store_belongs_to_one_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let first = Sqlite::open(&path).unwrap();
    assert!(matches!(Sqlite::open(&path), Err(Error::InUse { .. })));
    drop(first);
    assert!(Sqlite::open(&path).is_ok());
}

#[test]
fn a_damaged_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut store = Sqlite::open(&path).unwrap();
    let batch: Vec<Change> = (1..200)
        .map(|revision| change(revision, &"x".repeat(2_000)))
        .collect();
    store.commit(&batch, 0).unwrap();
    drop(store);
    let good = fs::read(&path).unwrap();
    let mut torn = good.clone();
    for byte in &mut torn[40_000..60_000] {
        *byte = 0x55;
    }
    fs::write(&path, &torn).unwrap();
    let refused = Sqlite::open(&path).and_then(|mut store| store.load());
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    fs::write(
        &path,
        "this is no database, and it is long enough to be taken for one",
    )
    .unwrap();
    assert!(matches!(Sqlite::open(&path), Err(Error::Damaged { .. })));
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let refused = Sqlite::open(&path).and_then(|mut store| store.load());
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[test]
fn the_log_beside_the_file_stays_bounded_while_writes_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let log = directory.path().join("store.db-wal");
    let mut store = Sqlite::open(&path).unwrap();
    let total = 8_000;
    let mut longest = 0;
    for first in (1..=total).step_by(50) {
        let text = "x".repeat(3_000);
        let batch: Vec<Change> = (first..first + 50)
            .map(|revision| change(revision, &text))
            .collect();
        store.commit(&batch, 0).unwrap();
        longest = longest.max(fs::metadata(&log).unwrap().len());
    }
    assert!(longest < 20_000_000, "{longest}");
    drop(store);
    assert!(!log.exists(), "all is in the file when it is closed");
    let loaded = Sqlite::open(&path).unwrap().load().unwrap();
    assert_eq!(loaded.objects.len() as u64, total);
}

#[test]
fn what_could_not_be_rolled_back_is_rolled_back_before_the_next_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut store = Sqlite::open(&path).unwrap();
    store.leave_open("insert into log values (7, 'torn', 'ADDED', '{}')");
    store.commit(&[change(1, "a")], 0).unwrap();
    drop(store);
    let loaded = Sqlite::open(&path).unwrap().load().unwrap();
    let keys: Vec<_> = loaded.objects.iter().map(|one| &one.key).collect();
    assert_eq!(keys, ["g/kinds//o1"]);
}

#[test]
fn a_row_that_is_no_object_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut store = Sqlite::open(&path).unwrap();
    store
        .commit(
            &[Change {
                object: "{".into(),
                ..change(1, "")
            }],
            0,
        )
        .unwrap();
    assert!(matches!(store.load(), Err(Error::Damaged { .. })));
}

#[test]
fn a_store_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let _store = Sqlite::open(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn compaction_forgets_the_log_and_keeps_the_objects() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(directory.path().join("store.db")).unwrap();
    store.commit(&[change(1, "a"), change(2, "b")], 0).unwrap();
    store.commit(&[], 2).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.revision, loaded.compacted), (2, 2));
    assert_eq!((loaded.objects.len(), loaded.log.len()), (2, 0));
}

#[test]
fn the_file_keeps_the_last_change_of_what_is_there_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut store = Sqlite::open(&path).unwrap();
    store.commit(&[change(1, "a"), change(2, "b")], 0).unwrap();
    store.commit(&[], 2).unwrap();
    let again = |revision, key: &str, replaces, operation| Change {
        key: key.to_owned(),
        operation,
        replaces: Some(replaces),
        ..change(revision, "c")
    };
    let first = "g/kinds//o1";
    store
        .commit(&[again(3, first, 1, Operation::Modified)], 2)
        .unwrap();
    store
        .commit(&[again(4, "g/kinds//o2", 2, Operation::Deleted)], 2)
        .unwrap();
    let loaded = store.load().unwrap();
    let kept: Vec<(&str, u64)> = loaded
        .objects
        .iter()
        .map(|object| (object.key.as_str(), object.revision))
        .collect();
    assert_eq!(kept, [(first, 3)]);
    assert_eq!(loaded.log.len(), 2);
    store.commit(&[], 4).unwrap();
    drop(store);
    let mut store = Sqlite::open(&path).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.revision, loaded.compacted), (4, 4));
    assert_eq!((loaded.objects.len(), loaded.log.len()), (1, 0));
    drop(store);
    let file = rusqlite::Connection::open(&path).unwrap();
    let rows: i64 = file
        .query_row("select count(*) from log", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn files_of_older_layouts_are_taken_over() {
    let log = "create table log (rv integer primary key, key text not null, op text not null, obj blob not null);
        create table meta (name text primary key, value integer not null) without rowid;
        insert into log values (8, 'g/kinds//new', 'ADDED', x'7b7d'), (9, 'g/kinds//gone', 'DELETED', x'7b7d');";
    let first = "create table cur (key text primary key, rv integer not null, obj blob not null) without rowid;
        insert into meta values ('layout', 1), ('revision', 9), ('compacted', 7);
        insert into cur values ('g/kinds//old', 3, x'7b7d'), ('g/kinds//new', 8, x'7b7d');";
    let second = "create table cur (key text primary key, rv integer not null) without rowid;
        insert into meta values ('layout', 2), ('revision', 9), ('compacted', 7);
        insert into log values (3, 'g/kinds//old', 'MODIFIED', x'7b7d');
        insert into cur values ('g/kinds//old', 3), ('g/kinds//new', 8);";
    for layout in [first, second] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch(log).unwrap();
        file.execute_batch(layout).unwrap();
        drop(file);
        for _ in 0..2 {
            let mut store = Sqlite::open(&path).unwrap();
            let loaded = store.load().unwrap();
            assert_eq!((loaded.revision, loaded.compacted), (9, 7));
            let kept: Vec<(&str, u64)> = loaded
                .objects
                .iter()
                .map(|object| (object.key.as_str(), object.revision))
                .collect();
            assert_eq!(kept, [("g/kinds//new", 8), ("g/kinds//old", 3)]);
            assert_eq!(loaded.log.len(), 2);
        }
    }
}

#[test]
fn the_file_shrinks_also_after_a_restart_in_between() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut store = Sqlite::open(&path).unwrap();
    let next = |revision| Change {
        key: "g/kinds//o".to_owned(),
        operation: Operation::Modified,
        replaces: Some(revision - 1),
        ..change(revision, "x")
    };
    let first = Change {
        key: "g/kinds//o".to_owned(),
        ..change(1, "x")
    };
    store.commit(&[first, next(2), next(3)], 0).unwrap();
    drop(store);
    let mut store = Sqlite::open(&path).unwrap();
    assert_eq!(store.load().unwrap().log.len(), 3);
    store.commit(&[next(4)], 0).unwrap();
    store.commit(&[], 4).unwrap();
    drop(store);
    let file = rusqlite::Connection::open(&path).unwrap();
    let rows: Vec<i64> = file
        .prepare("select rv from log")
        .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
        .unwrap();
    assert_eq!(rows, [4]);
}

#[test]
fn large_objects_that_change_do_not_pile_up_in_the_log() {
    let store = open(Box::new(Memory::default()));
    let large = "x".repeat(1_024 * 1_024);
    for number in 0..40 {
        let mut write = create(&format!("g/kinds//o{number}"));
        write.object["data"] = Value::from(large.as_str());
        futures::executor::block_on(store.write(write)).unwrap();
    }
    let after = |revision| store.subscribe("g/", Start::After(revision));
    assert!(after(1).is_none());
    assert_eq!(after(39).unwrap().backlog.len(), 1);
    assert!(after(30).is_some());
}

fn open(backend: Box<dyn Backend>) -> Store {
    let clock: Clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
    Store::open(backend, Commit::Threaded, clock).unwrap()
}

fn create(key: &str) -> Write {
    Write {
        key: key.to_owned(),
        expected: Expectation::Absent,
        object: json!({"metadata": {"name": key}}),
        deletes: false,
    }
}

fn change(revision: u64, text: &str) -> Change {
    Change {
        revision,
        key: format!("g/kinds//o{revision}"),
        operation: Operation::Added,
        object: Value::from(text).to_string().into(),
        replaces: None,
    }
}
