//! A clock that is wrong by years, at the edge or by an attack on time: keys have no dates.

use std::{fs, time::Duration};

use crate::lab::{Lab, skip};

/// Where Debian's package faketime has what stands between a program and its clock.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn a_machine_whose_clock_is_ten_years_off_is_peered_all_the_same() {
    let library = LIBRARIES.iter().find(|path| fs::exists(path).unwrap());
    let Some(library) = library else {
        return skip("libfaketime is not installed (Debian package faketime)");
    };
    for shift in ["+10y", "-10y"] {
        let Some(lab) = Lab::new(&["rome", "milan"]) else {
            return;
        };
        lab.start("rome");
        // The ticks of timers and the times of files stay what they are.
        let environment = [
            ("LD_PRELOAD", *library),
            ("FAKETIME", shift),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        lab.spawn("milan", &environment);
        lab.until_peered_with("rome", "milan");
        let milan = lab.tunnel_address("rome", "milan");
        assert!(lab.ping("rome", milan), "{shift}\n{}", lab.story());
        // It was the clock of another time, and a person hears of it.
        lab.until(PATIENCE, "rome warns of the dates", || {
            let log = fs::read_to_string(lab.log("rome")).unwrap();
            log.contains("outside of its dates").then_some(())
        });
    }
}
