//! `landbridge check lan`: whether multicast goes out and comes in, and what to do when it does not.

use serde_json::{Value, json};

use super::{
    Failure,
    args::{Check, CheckLan, CheckVerb, StatusOutput},
    output::{self, Tone, tint},
};
use crate::daemon::survey::{Finding, LanVerdict, check_lan};

/// Prints what was found out. It is well unless an interface is broken or none can be used.
pub(super) async fn check(options: Check) -> Result<(), Failure> {
    let CheckVerb::Lan(options) = options.verb;
    lan(options).await
}

async fn lan(options: CheckLan) -> Result<(), Failure> {
    let config = options.settings.sources().load()?.config;
    let finding = check_lan(&config, options.timeout).await.map_err(|error| {
        Failure::NotSo(format!("the network interfaces cannot be listed: {error}"))
    })?;
    let text = match options.output {
        StatusOutput::Text => text(&finding),
        StatusOutput::Json => format!("{:#}\n", value(&finding)),
    };
    output::print(&text)?;
    let mut used = 0;
    for interface in &finding.interfaces {
        match interface.verdict() {
            LanVerdict::Works(_) | LanVerdict::Alone(_) => used += 1,
            LanVerdict::Broken(_) => {
                let name = &interface.name;
                return Err(Failure::NotSo(format!("multicast does not work on {name}")));
            }
            LanVerdict::Skipped(_) => {}
        }
    }
    if used == 0 {
        let why = "no interface belongs to a LAN: one is needed that is up, can multicast and has an address";
        return Err(Failure::NotSo(why.to_owned()));
    }
    Ok(())
}

fn text(finding: &Finding) -> String {
    let mut text = String::new();
    let mut line = |sign: String, what: &str| {
        text = format!("{text}{sign} {}\n", crate::telemetry::escape(what));
    };
    for interface in &finding.interfaces {
        let (sign, what) = match interface.verdict() {
            LanVerdict::Works(what) => (tint("√", Tone::Good), what),
            LanVerdict::Alone(what) => (tint("‼", Tone::Care), what),
            LanVerdict::Broken(what) => (tint("×", Tone::Bad), what),
            LanVerdict::Skipped(what) => ("-".to_owned(), what),
        };
        line(sign, &format!("{}: {what}", interface.name));
    }
    for stack in &finding.stacks {
        let sign = if stack.name == "landbridge" {
            tint("√", Tone::Good)
        } else {
            tint("‼", Tone::Care)
        };
        line(sign, &finding.advice(stack));
    }
    text
}

fn value(finding: &Finding) -> Value {
    let interfaces = finding.interfaces.iter().map(|interface| {
        let (state, message) = match interface.verdict() {
            LanVerdict::Works(what) => ("works", what),
            LanVerdict::Alone(what) => ("alone", what),
            LanVerdict::Broken(what) => ("broken", what),
            LanVerdict::Skipped(what) => ("skipped", what),
        };
        json!({
            "name": interface.name,
            "addresses": interface.addresses,
            "state": state,
            "heard": interface.others,
            "message": message,
        })
    });
    let programs = finding.stacks.iter().map(|stack| {
        json!({"name": stack.name, "pid": stack.pid, "user": stack.user, "message": finding.advice(stack)})
    });
    json!({
        "interfaces": interfaces.collect::<Value>(),
        "programs": programs.collect::<Value>(),
    })
}
