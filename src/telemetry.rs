//! Logs: to standard error, as text for people or as JSON, safe to print.

mod queue;

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
    os::fd::AsFd,
    str::FromStr,
    sync::OnceLock,
    time::Duration,
};

use nix::sys::stat::fstat;
use tracing::{Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt as _,
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{self, FmtSpan, Writer},
        time::{FormatTime as _, SystemTime},
        writer::BoxMakeWriter,
    },
    registry::LookupSpan,
};

use crate::api::identity::is_printable;
use queue::Queue;

/// What is not written yet, where lines are queued.
static QUEUE: OnceLock<Queue> = OnceLock::new();
/// How long the end waits for that.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Indicates that logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates a filter that cannot be read.
    #[error("log level {filter:?} is not usable: use error, warn, info, debug or trace ({reason})")]
    Filter {
        /// The filter.
        filter: String,
        /// The reason.
        reason: String,
    },
    /// Indicates that the system gives no thread for them.
    #[error("logs cannot be written: {0}")]
    Thread(io::Error),
    /// Indicates that somebody else already takes the logs of this process.
    #[error("logs are already set up")]
    AlreadySet,
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text; without time under systemd's journal, which has its own.
    #[default]
    Auto,
    /// Text with time.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is unknown: use auto, text or json")),
        }
    }
}

/// How lines get to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// At once, by whoever says something.
    Direct,
    /// By a thread of their own: who does not read them does not stop the daemon. [`flush`] waits
    /// for what is on the way.
    Queued,
}

/// Which events are written.
#[derive(Debug)]
pub struct Filter(EnvFilter);

impl Filter {
    /// Reads what a person asks for. A single word is a level, and about this program only: of the
    /// libraries below it, warnings are written. Everything else is a filter as `RUST_LOG` takes it.
    pub fn new(level: &str) -> Result<Self, Error> {
        if level.contains(['=', ',', '[', ':']) {
            return Self::whole(level);
        }
        // What name servers say wrong is told in the status of the SearchDomain, and not twice. The
        // tunnel's engine says of each single packet that its peer has no endpoint yet, and calls its
        // end an error; whether it is alive is looked at in every pass.
        let all = format!(
            "warn,gotatun=off,hickory_net=off,hickory_proto=off,hickory_resolver=off,landbridge={level}"
        );
        level
            .parse::<LevelFilter>()
            .map_err(|error| Error::Filter {
                filter: level.to_owned(),
                reason: error.to_string(),
            })?;
        Self::whole(&all)
    }

    /// Reads the value of `RUST_LOG`, where a word may be a part of a program as well.
    pub fn of_variable(value: &str) -> Result<Self, Error> {
        if value.parse::<LevelFilter>().is_ok() {
            return Self::new(value);
        }
        Self::whole(value)
    }

    fn whole(filter: &str) -> Result<Self, Error> {
        EnvFilter::try_new(filter)
            .map(Self)
            .map_err(|error| Error::Filter {
                filter: filter.to_owned(),
                reason: error.to_string(),
            })
    }
}

/// Sends the logs of this process to standard error.
pub fn init(filter: Filter, format: Format, way: Way) -> Result<(), Error> {
    let queue = match way {
        Way::Direct => None,
        Way::Queued => Some(Queue::start(io::stderr()).map_err(Error::Thread)?),
    };
    if let Some(queue) = &queue {
        QUEUE.get_or_init(|| queue.clone());
    }
    let json = format == Format::Json;
    let writer = match (queue, json) {
        (None, false) => BoxMakeWriter::new(io::stderr),
        (None, true) => BoxMakeWriter::new(|| JsonLines(io::stderr())),
        (Some(queue), false) => BoxMakeWriter::new(move || queue.clone()),
        (Some(queue), true) => BoxMakeWriter::new(move || JsonLines(queue.clone())),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.0)
        .with_writer(writer)
        .with_span_events(FmtSpan::NONE);
    let outcome = match format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Auto | Format::Text => {
            let journal = env::var("JOURNAL_STREAM");
            let journal = format == Format::Auto
                && journal.is_ok_and(|journal| is_stream(&journal, io::stderr()));
            let colour = io::stderr().is_terminal()
                && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            builder
                .with_ansi(colour)
                .fmt_fields(format::debug_fn(write_field).delimited(" "))
                .event_format(Line { time: !journal })
                .try_init()
        }
    };
    outcome.map_err(|_| Error::AlreadySet)
}

/// Whether an output is the stream that systemd names by its device and inode (systemd.exec(5)). Who
/// is started by a service has the name too, wherever its own output goes.
fn is_stream(name: &str, output: impl AsFd) -> bool {
    fstat(output).is_ok_and(|file| name == format!("{}:{}", file.st_dev, file.st_ino))
}

/// Waits a moment until the lines that are on the way are written.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_LIMIT);
    }
}

/// Writes an event as `time LEVEL room: Message field=value`.
struct Line {
    time: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if self.time {
            SystemTime.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        let (before, after) = if writer.has_ansi_escapes() {
            (colour(*metadata.level()), "\u{1b}[0m")
        } else {
            ("", "")
        };
        write!(writer, "{before}{:>5}{after} ", metadata.level())?;
        let target = metadata.target();
        let room = target.strip_prefix("landbridge::").unwrap_or(target);
        write!(writer, "{room}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(writer, " {fields}")?;
            }
        }
        writeln!(writer)
    }
}

fn colour(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "\u{1b}[31m",
        tracing::Level::WARN => "\u{1b}[33m",
        tracing::Level::INFO => "\u{1b}[32m",
        tracing::Level::DEBUG | tracing::Level::TRACE => "\u{1b}[2m",
    }
}

/// Writes a field so that what a stranger sent can neither break the line nor steer a terminal.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = escape(&format!("{value:?}"));
    if field.name() == "message" {
        writer.write_str(&text)
    } else {
        write!(writer, "{}={text}", field.name())
    }
}

/// Replaces characters that steer a terminal, or turn the order in which a line is read, by their
/// escapes.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) {
            safe.push(character);
        } else {
            safe.extend(character.escape_default());
        }
    }
    safe
}

/// Writes lines of JSON in which nothing deceives.
struct JsonLines<W>(W);

impl<W: io::Write> io::Write for JsonLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let safe = escape_json(&String::from_utf8_lossy(bytes));
        self.0.write_all(safe.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Replaces what [`escape`] replaces by JSON's own escapes. Such characters are in strings only, but
/// for the end of a line.
fn escape_json(text: &str) -> String {
    use fmt::Write as _;
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || is_printable(character) {
            safe.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(safe, "\\u{unit:04x}").expect("writing to a string cannot fail");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let written = logged(|| {
            let name = "ro\u{1b}[31mme\nINFO \u{202e}\u{61c}\u{200b}forged";
            tracing::info!(%name, quoted = name, "Found {name}");
        });
        assert_eq!(written.lines().count(), 1, "{written}");
        assert!(!written.contains('\u{1b}'), "{written}");
        assert!(
            written.contains(r"name=ro\u{1b}[31mme\nINFO \u{202e}\u{61c}\u{200b}forged"),
            "{written}"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal_in_json_either() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || JsonLines(writer.clone()))
            .finish();
        let name = "ro\u{1b}[31mme\nINFO \u{202e}forged\u{9b}2J\u{7f}ü";
        tracing::subscriber::with_default(subscriber, || tracing::info!(%name, "Found {name}"));
        let written = String::from_utf8(sink.0.lock().expect("not poisoned").clone());
        let written = written.expect("text");
        assert_eq!(written.lines().count(), 1, "{written}");
        let deceiving = ['\u{1b}', '\u{202e}', '\u{9b}', '\u{7f}'];
        assert!(!written.contains(deceiving), "{written}");
        let value: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        assert_eq!(value["name"], name, "and nothing is lost");
        assert_eq!(value["message"], format!("Found {name}"));
    }

    #[test]
    fn a_stream_is_known_by_its_device_and_inode() {
        let (journal, file) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let status = fstat(&journal).unwrap();
        let name = format!("{}:{}", status.st_dev, status.st_ino);
        assert!(is_stream(&name, &journal));
        assert!(!is_stream(&name, &file));
    }

    #[test]
    fn an_event_is_level_room_message_and_fields() {
        let written = logged(|| tracing::warn!(target: "landbridge::peer", port = 5870, "Busy"));
        assert_eq!(written, " WARN peer: Busy port=5870\n");
    }

    #[test]
    fn a_word_is_about_this_program_and_a_filter_is_taken_whole() {
        assert_eq!(
            Filter::new("debug").expect("a level").0.to_string(),
            "hickory_resolver=off,hickory_proto=off,hickory_net=off,landbridge=debug,gotatun=off,warn"
        );
        assert_eq!(
            Filter::new("mdns_sd=trace")
                .expect("a filter")
                .0
                .to_string(),
            "mdns_sd=trace"
        );
        let error = Filter::new("loud").expect_err("no level").to_string();
        assert!(
            error.starts_with("log level \"loud\" is not usable"),
            "{error}"
        );
    }

    #[test]
    fn the_variable_is_what_other_programs_take_it_for() {
        let read = |value| Filter::of_variable(value).map(|filter| filter.0.to_string());
        assert_eq!(read("hyper").expect("a filter"), "hyper=trace");
        let whole = read("landbridge::peer,warn").expect("a filter");
        assert_eq!(whole, "landbridge::peer=trace,warn");
        let level = Filter::new("debug").expect("a level").0.to_string();
        assert_eq!(read("debug").expect("a level"), level);
        assert!(read("a=loud").is_err());
    }

    fn logged(work: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .event_format(Line { time: false })
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = sink.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Ok(mut written) = self.0.lock() {
                written.extend_from_slice(bytes);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
