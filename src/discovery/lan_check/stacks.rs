//! Which other programs have a UDP port of this machine, as far as we may see.

use std::{collections::BTreeMap, fs, path::Path};

/// Another program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    /// Its name; empty when only its user may see it.
    pub name: String,
    /// Its process.
    pub pid: Option<u32>,
    /// The user that it runs as.
    pub user: u32,
}

/// Returns the programs other than this one that have a UDP port in this network namespace.
pub(super) fn others(port: u16) -> Vec<Stack> {
    let mut owners = BTreeMap::new();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        owners.extend(sockets(&text, port));
    }
    let mut stacks: Vec<Stack> = Vec::new();
    for (process, inode) in open_sockets() {
        let Some(user) = owners.remove(&inode) else {
            continue;
        };
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        stacks.push(Stack {
            name: name.trim().to_owned(),
            pid: Some(process),
            user,
        });
    }
    // What is left belongs to processes that only their users may look into.
    stacks.extend(owners.into_values().map(|user| Stack {
        name: String::new(),
        pid: None,
        user,
    }));
    stacks.sort();
    stacks.dedup();
    stacks.retain(|stack| stack.pid != Some(std::process::id()));
    stacks
}

/// Reads inode and user of the sockets with a local port out of a table of the kernel (proc(5)).
fn sockets(table: &str, port: u16) -> Vec<(u64, u32)> {
    let rows = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = columns.get(1)?.rsplit_once(':')?;
        if u16::from_str_radix(local, 16).ok()? != port {
            return None;
        }
        Some((columns.get(9)?.parse().ok()?, columns.get(7)?.parse().ok()?))
    });
    rows.collect()
}

/// Lists the sockets of all processes that we may look into.
fn open_sockets() -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten();
        found.extend(
            files
                .flatten()
                .filter_map(|file| Some((process, inode(&file.path())?))),
        );
    }
    found
}

fn inode(file: &Path) -> Option<u64> {
    let target = fs::read_link(file).ok()?;
    let number = target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_table_of_the_kernel_gives_inode_and_user() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
              12: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000   104        0 2345 2 0000 0\n\
              13: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2346 2 0000 0\n";
        assert_eq!(sockets(table, 5353), [(2345, 104)]);
        assert_eq!(sockets("garbage\n 1 2 3\n", 5353), []);
    }

    #[test]
    fn our_own_sockets_do_not_count() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let table = fs::read_to_string("/proc/self/net/udp").expect("Linux");
        assert_eq!(sockets(&table, port).len(), 1);
        assert_eq!(others(port), []);
    }
}
