//! Attacks on the built program and on its doors, each in a test that can fail.
//!
//! The tests below are this file's own. Where a test elsewhere shows an attack already, it is named
//! here and not written again; the last test checks that all of them are there.
//!
//! What Liqo 0.2.1 allowed:
//!
//! | attack | shown by |
//! | --- | --- |
//! | a man in the middle reads the token | `attacks/impostor.rs` `a_man_in_the_middle_gets_nothing_and_what_is_peered_stays_so` `lan/trust.rs` `a_token_of_ours_lets_one_cluster_in_and_is_told_nowhere` |
//! | whoever is found is joined | `lan.rs` `strangers_peer_when_a_person_on_each_side_approves` |
//! | an id is what somebody says | `attacks/certificates.rs` `the_name_in_a_certificate_makes_nobody_another_cluster` `attacks/names.rs` `a_peer_that_claims_another_id_than_it_proved_is_not_heard` |
//! | one token for all, for ever | `peer/tokens.rs` `of_a_hundred_that_use_a_one_use_token_at_the_same_time_one_is_let_in` `a_token_ends_and_no_clock_brings_it_back` |
//! | one peer acts as another | `peer/identity.rs` `who_asks_in_the_name_of_another_is_refused_unheard` `peer/gateway.rs` `a_peer_sees_its_own_object_only` |
//! | secrets in logs | `attacks/canary.rs` `no_log_object_packet_or_answer_holds_a_secret` |
//! | answers without measure | `attacks/bombs.rs` `what_a_proven_peer_answers_without_measure_is_refused_early` |
//! | any advertised address is dialled | `attacks/addresses.rs` `what_is_announced_off_the_lan_is_not_dialled` |
//! | `fake://` as a way around | `attacks/addresses.rs` `of_all_urls_only_those_of_other_machines_are_dialled` |
//! | a crash between two steps is for ever | `peer/tokens.rs` `who_was_counted_and_not_accepted_loses_nothing` `simulation/restarts.rs` `a_restart_at_every_write_converges_after_a_join_and_a_leave` |
//! | one bad interface ends discovery | `discovery.rs` `a_port_that_is_taken_is_said_and_tried_again` `a_machine_without_a_network_waits_for_one` |
//!
//! By a host on the LAN:
//!
//! | attack | shown by |
//! | --- | --- |
//! | another's id is announced | `attacks/impostor.rs` `an_announced_id_without_its_key_becomes_no_object` `a_man_in_the_middle_gets_nothing_and_what_is_peered_stays_so` |
//! | an identity is on two machines | `lan/trust.rs` `a_copied_data_directory_holds_both_back_until_one_is_left` `a_copied_identity_is_taken_back_by_both_and_announced_by_neither` |
//! | TLS is passed on | `attacks/impostor.rs` `a_relay_sees_tls_and_cannot_take_its_place` `peer/identity.rs` `the_fleet_secret_is_proven_by_both_and_only_in_this_session` |
//! | forged goodbyes | `lan/forgery.rs` `forged_goodbyes_end_nothing` `discovery/forgery.rs` `forged_goodbyes_and_addresses_take_nothing_away` |
//! | a flood of instances | `lan/forgery.rs` `a_flood_of_forged_clusters_hides_nobody` `a_flood_of_forged_clusters_from_many_addresses_hides_nobody` |
//! | a cluster is placed elsewhere before it speaks | `src/discovery/mdns/neighbours/tests/forgery.rs` `a_cluster_is_told_where_it_is_however_many_placed_it_elsewhere_before` `the_address_that_a_cluster_speaks_from_goes_before_those_that_are_only_named` `who_describes_another_cluster_under_its_name_is_not_believed` `src/engine/roster/tests/flood.rs` `places_that_failed_make_way_for_those_that_were_not_tried` `simulation/places.rs` `places_that_are_silent_do_not_hold_up_the_one_that_answers` |
//! | malformed packets | `discovery/forgery.rs` `malformed_packets_are_survived` `what_fuzzers_should_find_is_replayed` |
//! | packets from off the link | `discovery/forgery.rs` `what_comes_from_another_port_or_through_a_router_is_not_acted_upon` |
//! | addresses that aim at others | `attacks/addresses.rs` `of_all_urls_only_those_of_other_machines_are_dialled` `a_name_that_leads_elsewhere_the_second_time_leads_nowhere` `peer/strangers.rs` `a_proven_peer_that_answers_wrongly_is_not_a_peer` |
//! | an older TLS, any certificate | `peer/handshake.rs` `tls_1_2_is_not_spoken_by_our_client` `tls_1_2_is_not_spoken_by_our_listener` `the_right_certificate_with_another_key_is_nobody` `dependencies.rs` `nothing_verifies_less_than_it_should` |
//! | chains of other lengths and kinds | `attacks/certificates.rs` `a_server_with_a_chain_that_is_none_is_told_nothing_and_the_reason_is_said` `a_client_with_a_chain_that_is_none_is_not_let_in` |
//! | tokens are guessed, at once or again | `src/peer/guesses.rs` `of_a_million_guesses_no_minute_sees_more_than_fifty` `peer/tokens.rs` `guesses_over_the_wire_end_after_five_whoever_makes_them` `who_is_in_already_can_try_no_more_tokens_than_others` `where_everybody_is_accepted_a_token_cannot_be_guessed_either` `the_proof_of_a_token_is_no_good_for_anybody_else` |
//! | the six digits are tried until two agree | `peer/digits.rs` `who_breaks_off_and_begins_anew_is_given_few_nonces` `src/controllers/approvals.rs` `a_new_name_for_each_exchange_is_bounded_too` `src/controllers/foreign_cluster/contact/tests.rs` `a_peer_that_breaks_off_learns_few_of_our_nonces` |
//! | half-open and slow connections | `attacks/exhaustion.rs` `two_thousand_half_open_and_dawdling_connections_keep_no_peer_out` |
//! | HTTP/2 is abused | `attacks/exhaustion.rs` `streams_that_are_opened_and_reset_end_with_their_connection` `a_head_without_end_is_ended` `a_connection_has_few_streams_and_small_heads` |
//! | bombs | `attacks/bombs.rs` `what_a_client_asks_without_measure_is_refused_early` `kubeapi/bad_input.rs` `a_yaml_bomb_does_not_go_off` |
//! | packets of the tunnel are repeated | `attacks/tunnel.rs` `replayed_packets_from_another_address_move_no_peer` |
//! | our tunnel is taken for a way to the peer | `tunnel/forward.rs` `what_is_forwarded_into_the_tunnel_comes_from_a_pod` |
//! | clocks are set | `attacks/clock.rs` `a_machine_whose_clock_is_ten_years_off_is_peered_all_the_same` `attacks/certificates.rs` `a_certificate_of_another_time_is_believed_for_its_key` `peer/tokens.rs` `a_clock_that_is_set_back_gives_a_token_no_longer_life` |
//!
//! By a DNS domain:
//!
//! | attack | shown by |
//! | --- | --- |
//! | records without end, or of others | `dns/hostile.rs` `ten_thousand_srv_records_spoil_nothing_and_are_bounded` `records_that_nobody_asked_for_are_not_believed` |
//! | forged signatures | `dns/signed.rs` `a_signed_domain_is_secure_with_its_key_and_bogus_with_another` |
//! | a place in a domain that is trusted | `dns/keys.rs` `only_keys_that_dnssec_proves_on_the_whole_way_are_read` `clusters_of_a_signed_domain_peer_without_a_keystroke_where_that_is_wanted` `dns/web_pki.rs` `clusters_with_a_certificate_for_their_name_peer_where_that_is_wanted` `src/engine/policy.rs` `a_domain_vouches_for_its_own_hosts_and_where_it_is_asked_to` `src/peer/web_pki/tests.rs` `a_certificate_holds_for_its_name_at_its_time_by_a_known_authority` `a_signature_is_worth_nothing_between_others_or_in_another_session` `what_is_not_well_formed_or_too_large_is_refused` |
//! | a record lifts a block | `src/controllers/enrolment.rs` `what_a_cluster_shows_lifts_no_block` |
//! | records are removed | `dns/belonging.rs` `a_record_that_goes_away_does_not_end_a_peering` |
//!
//! By an accepted peer, and by a tenant behind it:
//!
//! | attack | shown by |
//! | --- | --- |
//! | a leaf is forged for another | `attacks/certificates.rs` `a_client_with_a_chain_that_is_none_is_not_let_in` |
//! | more of our API than its object | `src/peer/permissions/tests.rs` `only_the_listed_cells_of_the_table_are_allowed` |
//! | more than its share | `attacks/quotas.rs` `ten_thousand_objects_are_one_and_others_are_served_meanwhile` `a_megabyte_is_refused_before_it_is_read` `a_peer_has_few_watches_and_another_has_its_own` `src/controllers/links/tests.rs` `the_changes_of_a_peer_are_taken_ten_a_second_after_the_first_fifty` |
//! | labels that steer our scheduler | `src/engine/offer/bounds.rs` `a_node_carries_no_label_that_only_its_cluster_may_say` |
//! | ranges of others | `attacks/ranges.rs` `of_all_claims_only_a_free_private_range_is_kept` `the_range_of_a_peer_cannot_be_taken_by_another` |
//! | tunnel endpoints that aim at others | `src/engine/overlay/wanted.rs` `endpoints_that_loop_or_lead_nowhere_are_dropped` |
//! | a tunnel that leads through itself | `src/tunnel/udp.rs` `nothing_is_sent_into_the_tunnel` |
//! | forged sources | `attacks/tunnel.rs` `forged_sources_inside_the_tunnel_are_dropped` |
//! | targets that were not offered | `attacks/tunnel.rs` `a_tenant_reaches_the_offered_range_and_nothing_else` |
//! | names and messages for terminals | `attacks/names.rs` `names_and_messages_steer_no_terminal` |
//!
//! By a user of the machine, and in what we build on:
//!
//! | attack | shown by |
//! | --- | --- |
//! | files are read or replaced | `attacks/local_user.rs` `nothing_in_the_data_directory_is_open_to_others_whatever_the_umask` `a_data_directory_that_others_can_change_is_refused_with_the_mend` `a_data_directory_of_another_user_is_refused` `links_that_were_laid_out_beforehand_are_not_followed` `a_fleet_secret_that_others_can_read_is_warned_of_with_the_mend` |
//! | the API on loopback, also by a page | `attacks/local_user.rs` `another_user_reads_no_key_and_is_not_let_in_by_the_api` |
//! | memory is read | `attacks/local_user.rs` `the_memory_of_a_daemon_is_for_root_alone` |
//! | crates of other sources | `dependencies.rs` `every_crate_comes_from_the_registry` `no_crate_is_one_that_is_banned` `no_build_script_is_new` |

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "attacks/addresses.rs"]
mod addresses;
#[path = "attacks/bombs.rs"]
mod bombs;
#[path = "attacks/canary.rs"]
mod canary;
#[path = "attacks/certificates.rs"]
mod certificates;
#[path = "attacks/clock.rs"]
mod clock;
#[path = "peer/crowd.rs"]
mod crowd;
#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "tests of a cluster use the rest")]
mod daemon;
#[path = "attacks/eve.rs"]
mod eve;
#[path = "attacks/exhaustion.rs"]
mod exhaustion;
#[path = "attacks/impostor.rs"]
mod impostor;
#[path = "lan/lab.rs"]
#[expect(dead_code, reason = "tests of the LAN use the rest")]
mod lab;
#[path = "attacks/local_user.rs"]
mod local_user;
#[path = "attacks/names.rs"]
mod names;
#[path = "tunnel/pair.rs"]
#[expect(dead_code, reason = "tests of the tunnel use the rest")]
mod pair;
#[path = "attacks/quotas.rs"]
mod quotas;
#[path = "attacks/ranges.rs"]
mod ranges;
#[path = "peer/rig.rs"]
#[expect(dead_code, reason = "tests of peers use the rest")]
mod rig;
#[path = "attacks/tunnel.rs"]
mod tunnel;

use std::{fs, path::Path};

#[test]
fn every_attack_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = fs::read_to_string(root.join("tests/attacks.rs")).unwrap();
    let rows = own.lines().filter(|line| line.starts_with("//! | "));
    let mut named = 0;
    for row in rows {
        let shown_by = row.rsplit(" | ").next().unwrap_or_default();
        let mut content = String::new();
        for word in shown_by.split('`').skip(1).step_by(2) {
            if word.contains(".rs") {
                let file = if word.starts_with("src/") {
                    root.join(word)
                } else {
                    root.join("tests").join(word)
                };
                content = fs::read_to_string(&file).unwrap_or_default();
                assert!(!content.is_empty(), "{word} is not there");
            } else {
                named += 1;
                let is_there = content.contains(&format!("fn {word}("));
                assert!(is_there, "{word} is not in the file before it");
            }
        }
    }
    assert!(named > 50, "{named} tests are named");
}
