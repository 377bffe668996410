//! What the demo says where it cannot run.

use super::*;

/// Hides each `nft` from the program that it runs.
const WITHOUT_NFT: &str = r#"for directory in /usr/sbin /sbin /usr/local/sbin /usr/bin /bin; do
    [ ! -e $directory/nft ] || mount --bind /dev/null $directory/nft || exit 99
done
exec "$@""#;

#[test]
fn a_demo_without_packet_rules_says_so_at_once() {
    let unshare = [
        "--user",
        "--map-root-user",
        "--mount",
        "--",
        "/bin/sh",
        "-c",
    ];
    let home = TempDir::new().expect("a directory");
    let output = Command::new("unshare")
        .args(unshare)
        .args([WITHOUT_NFT, "sh", "timeout", "10"])
        .args([env!("CARGO_BIN_EXE_landbridge"), "demo"])
        .env("HOME", home.path())
        .output();
    let Some(output) = output.ok().filter(|output| {
        output.status.code() != Some(99) && !text(&output.stderr).starts_with("unshare:")
    }) else {
        println!("skipped: user namespaces cannot be made here");
        return;
    };
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nftables"), "{said}");
}
