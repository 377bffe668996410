//! What this machine has: processors, memory and storage, within the limits of its control group.

use std::{fs, num::NonZero, path::Path, thread};

use nix::{sched::CpuSet, sched::sched_getaffinity, sys::statvfs::statvfs, unistd::Pid};

/// Where control groups are mounted (cgroups(7)).
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Its name.
    pub hostname: String,
    /// Its processors, in thousandths.
    pub cpu_milli: u64,
    /// Its memory.
    pub memory_bytes: u64,
    /// The size of the file system that its data lie on.
    pub storage_bytes: u64,
}

impl Machine {
    /// Returns its name as that of a Node: a DNS-1123 subdomain.
    pub fn node_name(&self) -> String {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
        let dashed = self
            .hostname
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if allowed(c) { c } else { '-' })
            .take(253);
        let labels: String = dashed.collect();
        let labels: Vec<&str> = labels
            .split('.')
            .map(|label| label.trim_matches('-'))
            .filter(|label| !label.is_empty())
            .collect();
        if labels.is_empty() {
            "localhost".to_owned()
        } else {
            labels.join(".")
        }
    }
}

/// Reads what this machine has. What cannot be read counts as nothing.
pub fn read(data_dir: &Path) -> Machine {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = ControlGroups::parse(&groups);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = total_memory(&memory).unwrap_or_default();
    let processors = processors() * 1000;
    Machine {
        hostname: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        cpu_milli: groups
            .cpu_milli()
            .map_or(processors, |limit| limit.min(processors)),
        memory_bytes: groups.memory().map_or(memory, |limit| limit.min(memory)),
        storage_bytes: storage(data_dir),
    }
}

/// Returns the architecture as Kubernetes spells it, which is Go's way.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Counts the processors that this process may run on.
fn processors() -> u64 {
    let affinity = sched_getaffinity(Pid::from_raw(0)).map(|set| {
        (0..CpuSet::count())
            .filter(|processor| set.is_set(*processor).unwrap_or(false))
            .count()
    });
    let count = affinity
        .ok()
        .filter(|count| *count > 0)
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    u64::try_from(count).unwrap_or(1)
}

fn storage(path: &Path) -> u64 {
    // The directory may not have been made yet: what counts is the file system.
    let sizes = path.ancestors().find_map(|ancestor| statvfs(ancestor).ok());
    sizes.map_or(0, |sizes| {
        sizes.blocks().saturating_mul(sizes.fragment_size())
    })
}

/// Reads `MemTotal` of proc_meminfo(5).
fn total_memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The control groups that this process is in, version 2 and the two of version 1 that limit it.
#[derive(Debug, Default, PartialEq, Eq)]
struct ControlGroups {
    unified: Option<String>,
    cpu: Option<String>,
    memory: Option<String>,
}

impl ControlGroups {
    /// Reads `/proc/self/cgroup`: lines of `number:controllers:path`.
    fn parse(text: &str) -> Self {
        let mut groups = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let path = Some(path.to_owned());
            if controllers.is_empty() {
                groups.unified = path;
            } else if controllers.split(',').any(|name| name == "memory") {
                groups.memory = path;
            } else if controllers.split(',').any(|name| name == "cpu") {
                groups.cpu = path;
            }
        }
        groups
    }

    fn cpu_milli(&self) -> Option<u64> {
        let unified = least(self.unified.as_deref(), "", "cpu.max", cpu_of_version_2);
        let quota = |file| {
            least(self.cpu.as_deref(), "cpu", file, |text| {
                text.trim().parse().ok()
            })
        };
        let period = quota("cpu.cfs_period_us");
        let old = quota("cpu.cfs_quota_us")
            .zip(period)
            .and_then(|(quota, period): (u64, u64)| milli(quota, period));
        unified.into_iter().chain(old).min()
    }

    fn memory(&self) -> Option<u64> {
        let number = |text: &str| text.trim().parse().ok();
        let unified = least(self.unified.as_deref(), "", "memory.max", number);
        let old = least(
            self.memory.as_deref(),
            "memory",
            "memory.limit_in_bytes",
            number,
        );
        unified.into_iter().chain(old).min()
    }
}

/// Reads `cpu.max`: `max 100000` or a quota and its period.
fn cpu_of_version_2(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    milli(quota.parse().ok()?, period.parse().ok()?)
}

fn milli(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

/// Returns the least limit of a group and those above it: each of them binds.
fn least(
    group: Option<&str>,
    controller: &str,
    file: &str,
    parse: impl Fn(&str) -> Option<u64>,
) -> Option<u64> {
    let group = Path::new(group?.trim_start_matches('/'));
    let root = Path::new(CONTROL_GROUPS).join(controller);
    group
        .ancestors()
        .filter_map(|group| fs::read_to_string(root.join(group).join(file)).ok())
        .filter_map(|text| parse(&text))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       24000000 kB\nMemFree:          100 kB\n";
        assert_eq!(total_memory(text), Some(24_576_000_000));
        assert_eq!(total_memory("MemTotal: lots"), None);
    }

    #[test]
    fn both_versions_of_control_groups_are_understood() {
        let groups = ControlGroups::parse("4:memory:/pod\n2:cpu,cpuacct:/pod:1\n0::/unified\nbad");
        let expected = ControlGroups {
            unified: Some("/unified".to_owned()),
            cpu: Some("/pod:1".to_owned()),
            memory: Some("/pod".to_owned()),
        };
        assert_eq!(groups, expected);
    }

    #[test]
    fn a_quota_of_processors_is_read_in_thousandths() {
        for (text, expected) in [
            ("max 100000\n", None),
            ("150000 100000\n", Some(1500)),
            ("1 0", None),
            ("", None),
        ] {
            assert_eq!(cpu_of_version_2(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_host_name_becomes_the_name_of_a_node() {
        for (hostname, expected) in [
            ("rome", "rome"),
            ("Rome_1.Example.COM", "rome-1.example.com"),
            ("-.-", "localhost"),
            ("", "localhost"),
        ] {
            let machine = Machine {
                hostname: hostname.to_owned(),
                ..Machine::default()
            };
            assert_eq!(machine.node_name(), expected, "{hostname:?}");
        }
    }

    #[test]
    fn this_machine_has_something_of_everything() {
        let machine = read(Path::new("/var/lib/landbridge/not/there"));
        assert!(machine.cpu_milli > 0, "{machine:?}");
        assert!(machine.memory_bytes > 0, "{machine:?}");
        assert!(machine.storage_bytes > 0, "{machine:?}");
    }
}
