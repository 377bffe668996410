//! watch: a stream of changes that can be resumed, with bookmarks.

use super::{
    Server,
    catalog::Resource,
    options,
    present::{Format, Presenter, as_shown, respond, shown},
    read::{not_a_number, selector},
    refusal::{FieldError, Refusal},
    routes::{Parameters, Target},
    selector::Selector,
    store::{Event, Events, Operation, Start, Stored},
    table::Include,
};
use crate::kubeapi::tree::Tree;
use axum::{
    body::{Body, Bytes},
    http::{Response, StatusCode},
};
use serde_json::{Value, json};
use std::{collections::VecDeque, mem, sync::Arc, time::Duration, vec};
use tokio::time::{Instant, sleep_until};

/// How long a watch lasts when the client does not say it.
const LONGEST: Duration = Duration::from_hours(1);

/// How often an idle watch tells its revision.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);

/// A watch that is shorter does not tell its revision at its end.
const SHORTEST_WITH_BOOKMARK: Duration = Duration::from_secs(2);

/// How long before its end a watch tells its revision once more: a real server finds about
/// once a second which watches have less than two left.
const LAST_BOOKMARK: Duration = Duration::from_millis(1_500);

/// How many bytes of lines are sent together, about; a line on its own is sent at once.
const TOGETHER: usize = 64 * 1_024;

/// How a watch begins, read from its parameters.
#[derive(Debug)]
struct Opening {
    start: Start,
    /// Tell by a bookmark where the initial objects end.
    marks_initial_end: bool,
}

impl Server {
    /// Answers a watch.
    pub(super) fn watch(
        &self,
        target: &Target,
        parameters: &Parameters,
        presenter: Presenter<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let mut selector = selector(target, parameters)?;
        if let Some(name) = &target.name {
            let only = format!("metadata.name={name}");
            selector = Selector::parse("", &only, &target.resource.selectable)?;
        }
        let opening = opening(parameters)?;
        let lasts = match options::number(parameters, "timeoutSeconds")?.map(u64::try_from) {
            None | Some(Ok(0) | Err(_)) => LONGEST,
            Some(Ok(seconds)) => Duration::from_secs(seconds).min(LONGEST * 24),
        };
        let prefix = target.resource.prefix(&target.namespace);
        let Some(subscription) = self.store.subscribe(&prefix, opening.start) else {
            return Ok(expired(parameters, self.store.compacted()));
        };
        if !selector.is_lasting() && subscription.backlog.iter().any(|event| event.is_unknown()) {
            return Ok(expired(parameters, self.store.compacted()));
        }
        let now = Instant::now();
        let bookmarks = parameters.flag("allowWatchBookmarks");
        let end = now + lasts;
        let stream = Stream {
            store: Arc::downgrade(&self.store),
            resource: Arc::clone(&target.resource),
            format: presenter.format,
            include: presenter.include,
            clock: Arc::clone(&self.clock),
            selector,
            objects: subscription.objects.into_iter(),
            marks_initial_end: opening.marks_initial_end && bookmarks,
            backlog: subscription.backlog,
            ready: VecDeque::new(),
            revision: subscription.revision,
            floor: match opening.start {
                Start::After(revision) => revision,
                Start::Objects | Start::Now => 0,
            },
            events: subscription.events,
            first: true,
            end,
            bookmark: (bookmarks && lasts > SHORTEST_WITH_BOOKMARK)
                .then(|| next_bookmark(now, end))
                .flatten(),
        };
        let lines = futures::stream::unfold(stream, |mut stream| async {
            let line = stream.next().await?;
            Some((Ok::<_, std::convert::Infallible>(line), stream))
        });
        Ok(respond(
            StatusCode::OK,
            "application/json",
            Body::from_stream(lines),
        ))
    }
}

fn opening(parameters: &Parameters) -> Result<Opening, Refusal> {
    let wants_initial = parameters.has("sendInitialEvents");
    let matching = parameters.get("resourceVersionMatch");
    let mistake = if !matching.is_empty() && !wants_initial {
        Some("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    } else if wants_initial && matching != "NotOlderThan" {
        Some("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    } else {
        None
    };
    let mistake = mistake.map(|why| FieldError::forbidden("resourceVersionMatch", why));
    options::check("ListOptions", mistake.as_slice())?;
    let text = parameters.get("resourceVersion");
    let revision: u64 = if text.is_empty() {
        0
    } else {
        text.parse()
            .map_err(|_| Refusal::internal(not_a_number(text)))?
    };
    let initial = parameters.flag("sendInitialEvents");
    let start = match (wants_initial, initial, revision) {
        (true, true, _) | (false, _, 0) => Start::Objects,
        (true, false, 0) => Start::Now,
        (_, _, revision) => Start::After(revision),
    };
    Ok(Opening {
        start,
        marks_initial_end: initial,
    })
}

/// A watch from a revision that is forgotten: one event that says so, then the end.
fn expired(parameters: &Parameters, compacted: u64) -> Response<Body> {
    let asked = parameters.get("resourceVersion");
    let refusal = Refusal::expired(format!("too old resource version: {asked} ({compacted})"));
    let line = event_line("ERROR", refusal.status().to_string().as_bytes());
    let line = futures::stream::iter([Ok::<_, std::convert::Infallible>(line)]);
    respond(StatusCode::OK, "application/json", Body::from_stream(line))
}

/// One line of a watch.
fn event_line(word: &str, object: &[u8]) -> Bytes {
    let mut line = format!("{{\"type\":\"{word}\",\"object\":").into_bytes();
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}

fn next_bookmark(now: Instant, end: Instant) -> Option<Instant> {
    let last = end.checked_sub(LAST_BOOKMARK)?;
    if now >= last {
        return None;
    }
    Some((now + BOOKMARK_EVERY).min(last))
}

struct Stream {
    store: std::sync::Weak<super::store::Store>,
    resource: Arc<Resource>,
    format: Format,
    include: Include,
    clock: super::Clock,
    selector: Selector,
    /// What was there when it began and is not told yet; kept as it is stored, since lines of it may
    /// be copies, and the reader may be slow.
    objects: vec::IntoIter<Arc<Stored>>,
    marks_initial_end: bool,
    /// What happened before it began and is not told yet.
    backlog: VecDeque<Arc<Event>>,
    ready: VecDeque<Bytes>,
    /// The revision up to which everything has been told.
    revision: u64,
    /// The revision that the client knows; it may be one of the future.
    floor: u64,
    events: Events,
    first: bool,
    end: Instant,
    bookmark: Option<Instant>,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if Instant::now() >= self.end {
                return None;
            }
            if let Some(lines) = self.take_ready() {
                return Some(lines);
            }
            let bookmark = self.bookmark;
            tokio::select! {
                biased;
                event = self.events.next() => self.tell(&*event?),
                () = sleep_until(self.end) => return None,
                () = sleep_until(bookmark.unwrap_or(self.end)), if bookmark.is_some() => {
                    self.mark();
                }
            }
        }
    }

    /// What can be sent by now: one line as it is, or several together, since each sending costs
    /// this side and the other one more than a line does.
    fn take_ready(&mut self) -> Option<Bytes> {
        let first = self.next_ready()?;
        let Some(second) = self.next_ready() else {
            return Some(first);
        };
        let mut together = [first, second].concat();
        while together.len() < TOGETHER
            && let Some(line) = self.next_ready()
        {
            together.extend_from_slice(&line);
        }
        Some(Bytes::from(together))
    }

    /// The next line, if there is one by now.
    fn next_ready(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if let Some(stored) = self.objects.next() {
                if self.selects(&stored) {
                    return Some(self.line(Operation::Added, &stored, stored.revision));
                }
                continue;
            }
            if mem::take(&mut self.marks_initial_end) {
                return Some(self.initial_end());
            }
            let event = self.backlog.pop_front().or_else(|| self.events.ready())?;
            self.tell(&event);
        }
    }

    /// Adds a bookmark after everything that happened up to now.
    fn mark(&mut self) {
        self.bookmark = next_bookmark(Instant::now(), self.end);
        // Whatever is older than this revision is already in the channel.
        let Some(reached) = self.store.upgrade().map(|store| store.revision()) else {
            return;
        };
        while let Some(event) = self.events.ready() {
            self.tell(&event);
        }
        // Who is cut off does not get what was in the channel.
        if self.events.has_ended() {
            return;
        }
        self.revision = self.revision.max(reached);
        let line = self.bookmark_line(&json!({}));
        self.ready.push_back(line);
    }

    fn initial_end(&self) -> Bytes {
        self.bookmark_line(&json!({"k8s.io/initial-events-end": "true"}))
    }

    fn bookmark_line(&self, annotations: &Value) -> Bytes {
        let (api_version, kind) = match self.format {
            Format::Json | Format::Yaml => {
                (self.resource.api_version(), self.resource.kind.as_str())
            }
            Format::Partial => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
            Format::Table => ("meta.k8s.io/v1".to_owned(), "Table"),
        };
        let revision = self.revision.max(self.floor).to_string();
        let mut metadata = json!({"resourceVersion": revision});
        if annotations.as_object().is_some_and(|map| !map.is_empty()) {
            metadata.set(&["annotations"], annotations.clone());
        }
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
        event_line("BOOKMARK", object.to_string().as_bytes())
    }

    /// Adds the line of an event, if it concerns what is watched.
    fn tell(&mut self, event: &Event) {
        self.revision = event.revision;
        if event.revision <= self.floor {
            return;
        }
        let is = event.operation != Operation::Deleted && self.selects(&event.object);
        // What was there before the log began is not known. A deletion tells the last state itself,
        // and otherwise only names are asked about, which never change.
        let before = event.previous.as_ref().unwrap_or(&event.object);
        let was = event.operation != Operation::Added && self.selects(before);
        let line = match (was, is) {
            (false, false) => return,
            (false, true) => self.line(Operation::Added, &event.object, event.revision),
            (true, true) => self.line(Operation::Modified, &event.object, event.revision),
            // The watcher last saw the old state; what it is now is none of its business.
            (true, false) => self.line(Operation::Deleted, before, event.revision),
        };
        self.ready.push_back(line);
    }

    /// Whether an object is watched.
    fn selects(&self, stored: &Stored) -> bool {
        self.selector.is_empty() || {
            let object = shown(&self.resource, stored.tree());
            self.selector.matches(&object)
        }
    }

    fn line(&mut self, operation: Operation, stored: &Stored, revision: u64) -> Bytes {
        let now = (self.clock)();
        let presenter = Presenter {
            resource: &self.resource,
            format: self.format,
            include: self.include,
            now,
        };
        let word = operation.as_str();
        if presenter.sends_bytes_of(stored) && stored.revision == revision {
            // One line for all watchers, unless this one is told something else.
            let line = stored.line(operation);
            return line.unwrap_or_else(|| event_line(word, &stored.json()));
        }
        let mut object = as_shown(&self.resource, stored.value());
        object.set(
            &["metadata", "resourceVersion"],
            json!(revision.to_string()),
        );
        let object = presenter.watched(object, self.first);
        self.first = false;
        event_line(word, object.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::{
        catalog::Catalog,
        store::{Commit, Expectation, Memory, Store, Write},
    };
    use std::sync::atomic::{AtomicU64, Ordering};

    /// How far the writer is ahead of the reader at most.
    const AHEAD: u64 = 100;

    fn stream_of(store: &Arc<Store>) -> Stream {
        let catalog = Catalog::new(std::iter::empty(), Catalog::components());
        let resource = catalog.find("", "v1", "configmaps").unwrap();
        let subscription = store.subscribe(&resource.storage, Start::Now).unwrap();
        let now = Instant::now();
        Stream {
            store: Arc::downgrade(store),
            resource: Arc::clone(resource),
            format: Format::Json,
            include: Include::parse(""),
            clock: Arc::new(|| jiff::Timestamp::UNIX_EPOCH),
            selector: Selector::default(),
            objects: Vec::new().into_iter(),
            marks_initial_end: false,
            backlog: VecDeque::new(),
            ready: VecDeque::new(),
            revision: 0,
            floor: 0,
            events: subscription.events,
            first: true,
            end: now + LONGEST,
            bookmark: None,
        }
    }

    #[test]
    fn no_bookmark_is_ahead_of_what_was_told() {
        let clock: crate::kubeapi::Clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        let store = Store::open(Box::new(Memory::default()), Commit::Inline, clock);
        let store = Arc::new(store.unwrap());
        let mut stream = stream_of(&store);
        let (total, told) = (20_000, AtomicU64::new(0));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for number in 1..=total {
                    while number > told.load(Ordering::Relaxed) + AHEAD {
                        std::hint::spin_loop();
                    }
                    let write = Write {
                        key: format!("/configmaps/default/{number}"),
                        expected: Expectation::Absent,
                        object: json!({}),
                        deletes: false,
                    };
                    futures::executor::block_on(store.write(write)).unwrap();
                }
            });
            let mut right = true;
            while told.load(Ordering::Relaxed) < total {
                stream.mark();
                let bookmark = stream.ready.pop_back().unwrap();
                let bookmark: Value = serde_json::from_slice(&bookmark).unwrap();
                let before = told.load(Ordering::Relaxed) + stream.ready.len() as u64;
                stream.ready.clear();
                let revision = bookmark["object"]["metadata"].text("resourceVersion");
                right &= revision == before.to_string();
                // What went wrong is told when the writer is through.
                told.store(if right { before } else { total }, Ordering::Relaxed);
            }
            assert!(right);
        });
    }
}
