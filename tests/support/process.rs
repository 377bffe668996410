//! What a process uses, as the kernel tells it (proc(5)).

use std::{fs, time::Duration};

/// A process by its number.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Returns its resident memory, in KiB.
    pub(crate) fn resident(self) -> u32 {
        self.memory("VmRSS:")
    }

    /// Returns the most that its resident memory has been, in KiB.
    pub(crate) fn most_resident(self) -> u32 {
        self.memory("VmHWM:")
    }

    fn memory(self, figure: &str) -> u32 {
        let status = self.file("status");
        let value = status.lines().find_map(|line| line.strip_prefix(figure));
        let number = value.and_then(|value| value.split_whitespace().next());
        let number = number.and_then(|number| number.parse().ok());
        number.expect("a figure of a process that runs")
    }

    /// Returns its user and system time.
    pub(crate) fn processor_time(self) -> Duration {
        let stat = self.file("stat");
        // Fields 14 and 15, counted from behind the name, which may have spaces. Their unit is a
        // hundredth of a second on every platform that we build for.
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = times
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    fn file(self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.0)).expect("the process runs")
    }
}
