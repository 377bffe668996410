//! Tokens at a whole front desk: who is let in, how often, and for how long.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::DeleteParams};
use landbridge::{
    api::{
        ClusterId, ForeignCluster,
        foreign_cluster::TrustMode,
        labels::{self, reason},
        token::{self, TokenHash},
        wire::{Decision, IdentityAnswer, IdentityRequest, Token},
    },
    peer::{
        auth::Reception as _,
        client::{ConnectError, Connector as _},
        listener,
        token::verify,
        trust::Role,
    },
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    front_desk::{Rome, TOKEN, Visitor},
    rig::{connector, credentials, target},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_that_use_a_one_use_token_at_the_same_time_one_is_let_in() {
    let rome = Arc::new(Rome::open().await);
    rome.give_out(&[(token::USES, "1")]).await;
    let tasks = (0..100).map(|number| {
        let rome = Arc::clone(&rome);
        tokio::spawn(async move { rome.show(&Visitor::new(number), TOKEN).await.decision })
    });
    let decisions: Vec<Decision> = join_all(tasks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let count = |wanted| decisions.iter().filter(|one| **one == wanted).count();
    assert_eq!(
        (count(Decision::Accepted), count(Decision::Refused)),
        (1, 99)
    );
    assert_eq!(rome.left().await, "0");
    let known = rome.known().await;
    assert_eq!(known.len(), 1, "who was refused leaves nothing behind");
    assert_eq!(known[0].spec.trust_mode, TrustMode::Trusted);
    let annotations = known[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations[labels::TRUSTED_BY], reason::TOKEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_at_the_door_are_fewer_guesses_and_still_one_is_let_in() {
    let rome = Arc::new(Rome::open().await);
    rome.give_out(&[(token::USES, "1")]).await;
    let tasks = (0..100).map(|number| {
        let rome = Arc::clone(&rome);
        tokio::spawn(async move {
            let visitor = Visitor::new(number);
            rome.door(&visitor)
                .identify(&visitor.request(rome.id(), TOKEN))
                .await
        })
    });
    let answers: Vec<_> = join_all(tasks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let accepted = |answer: &&Result<IdentityAnswer, ConnectError>| {
        answer
            .as_ref()
            .is_ok_and(|answer| answer.decision == Decision::Accepted)
    };
    assert_eq!(answers.iter().filter(accepted).count(), 1);
    assert_eq!(rome.left().await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_counted_token_lets_in_as_many_as_it_says() {
    let rome = Arc::new(Rome::open().await);
    rome.give_out(&[(token::USES, "3")]).await;
    let tasks = (0..20).map(|number| {
        let rome = Arc::clone(&rome);
        tokio::spawn(async move { rome.show(&Visitor::new(number), TOKEN).await.decision })
    });
    let decisions = join_all(tasks).await;
    let accepted = decisions
        .into_iter()
        .filter(|one| matches!(one, Ok(Decision::Accepted)));
    assert_eq!(accepted.count(), 3);
    assert_eq!(rome.known().await.len(), 3);
}

#[tokio::test]
async fn who_was_counted_and_not_accepted_loses_nothing() {
    let rome = Rome::open().await;
    rome.give_out(&[(token::USES, "1")]).await;
    let (milan, turin) = (Visitor::new(1), Visitor::new(2));
    assert_eq!(rome.show(&milan, TOKEN).await.decision, Decision::Accepted);
    // As if rome had crashed between the count and the acceptance.
    let api: Api<ForeignCluster> = Api::all(rome.client.clone());
    api.delete("visitor-1", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(rome.show(&turin, TOKEN).await.decision, Decision::Refused);
    let answer = rome.show(&milan, TOKEN).await;
    assert_eq!(answer.decision, Decision::Accepted);
    let hash = TokenHash::of(TOKEN).unwrap();
    let exporter = milan.session().exporter;
    let shown = answer.token_proof.unwrap();
    assert!(verify(
        &hash,
        &shown,
        Role::Foreign,
        &milan.id,
        rome.id(),
        &exporter
    ));
}

#[tokio::test]
async fn a_token_ends_and_no_clock_brings_it_back() {
    let rome = Rome::open().await;
    rome.give_out(&[(token::EXPIRES, "2027-01-15T09:00:00Z")])
        .await;
    let end: Timestamp = "2027-01-15T09:00:00Z".parse().unwrap();
    let set = |seconds| {
        rome.clock
            .store(end.as_second() + seconds, Ordering::SeqCst);
    };
    set(-1);
    assert_eq!(
        rome.show(&Visitor::new(1), TOKEN).await.decision,
        Decision::Accepted
    );
    set(0);
    assert_eq!(
        rome.show(&Visitor::new(2), TOKEN).await.decision,
        Decision::Refused
    );
    set(-10_000);
    assert_eq!(
        rome.show(&Visitor::new(3), TOKEN).await.decision,
        Decision::Refused
    );
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_gives_a_token_no_longer_life() {
    let rome = Rome::open().await;
    let minute = Timestamp::from_second(rome.clock.load(Ordering::SeqCst) + 60).unwrap();
    rome.give_out(&[(token::EXPIRES, &minute.to_string())])
        .await;
    assert_eq!(
        rome.show(&Visitor::new(1), TOKEN).await.decision,
        Decision::Accepted
    );
    rome.clock.fetch_sub(1_000_000, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(
        rome.show(&Visitor::new(2), TOKEN).await.decision,
        Decision::Accepted
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        rome.show(&Visitor::new(3), TOKEN).await.decision,
        Decision::Refused
    );
}

#[tokio::test]
async fn without_a_token_one_waits_or_is_told_that_one_is_needed() {
    let rome = Rome::open().await;
    let milan = Visitor::new(1);
    assert_eq!(rome.ask(&milan).await.decision, Decision::Waiting);
    rome.config
        .send_modify(|config| config.auth_config.require_token = true);
    assert_eq!(rome.ask(&milan).await.decision, Decision::EmptyRefused);
    let turin = Visitor::new(2);
    assert_eq!(rome.ask(&turin).await.decision, Decision::EmptyRefused);
    assert_eq!(rome.known().await.len(), 1, "turin leaves nothing behind");
    let wrong = TOKEN.replace('5', "6");
    assert_eq!(rome.show(&milan, &wrong).await.decision, Decision::Refused);
    assert_eq!(rome.show(&turin, &wrong).await.decision, Decision::Refused);
    assert_eq!(rome.known().await.len(), 1);
    rome.config
        .send_modify(|config| config.auth_config.allow_empty_token = true);
    assert_eq!(rome.ask(&turin).await.decision, Decision::Accepted);
}

#[tokio::test]
async fn a_token_opens_nothing_to_who_was_denied() {
    let rome = Rome::open().await;
    rome.give_out(&[(token::USES, "1")]).await;
    let milan = Visitor::new(1);
    rome.ask(&milan).await;
    rome.decide(json!({"incomingPeeringEnabled": "No"})).await;
    assert_eq!(rome.show(&milan, TOKEN).await.decision, Decision::Refused);
    assert_eq!(rome.left().await, "1", "nothing was used");
}

#[tokio::test]
async fn who_is_in_already_uses_nothing_up_and_still_gets_the_proof() {
    let rome = Rome::open().await;
    rome.give_out(&[(token::USES, "1")]).await;
    let milan = Visitor::new(1);
    rome.ask(&milan).await;
    rome.decide(json!({"trustMode": "Trusted"})).await;
    let answer = rome.show(&milan, TOKEN).await;
    assert_eq!(answer.decision, Decision::Accepted);
    assert!(answer.token_proof.is_some());
    assert_eq!(rome.left().await, "1");
}

#[tokio::test]
async fn the_proof_of_a_token_is_no_good_for_anybody_else() {
    let rome = Rome::open().await;
    rome.give_out(&[]).await;
    let (milan, thief) = (Visitor::new(1), Visitor::new(2));
    let stolen = milan.request(rome.id(), TOKEN).token_proof;
    let request = IdentityRequest {
        token_proof: stolen,
        ..thief.request(rome.id(), TOKEN)
    };
    let answer = rome.desk.identify(&thief.session(), request).await.unwrap();
    assert_eq!(answer.decision, Decision::Refused);
    let elsewhere = milan.request(&ClusterId::from_spki(b"elsewhere"), TOKEN);
    let answer = rome
        .desk
        .identify(&milan.session(), elsewhere)
        .await
        .unwrap();
    assert_eq!(answer.decision, Decision::Refused);
}

#[tokio::test]
async fn the_secret_of_liqos_documents_is_a_token_in_its_own_words() {
    let rome = Rome::open().await;
    let mut secret = Secret::default();
    secret.metadata.name = Some(token::AUTH_TOKEN.to_owned());
    secret.data = Some([(token::TOKEN.to_owned(), token::bytes(TOKEN))].into());
    rome.keep(&secret).await;
    let milan = Visitor::new(1);
    let plain = |text: &str| IdentityRequest {
        token_proof: None,
        token: Some(Token(text.to_owned())),
        ..milan.request(rome.id(), TOKEN)
    };
    for (text, expected) in [
        ("", Decision::Waiting),
        ("a\0b", Decision::Refused),
        (&TOKEN[1..], Decision::Refused),
        (TOKEN, Decision::Accepted),
    ] {
        let answer = rome
            .desk
            .identify(&milan.session(), plain(text))
            .await
            .unwrap();
        assert_eq!(answer.decision, expected, "{text:?}");
    }
    assert!(!format!("{:?}", plain(TOKEN)).contains(TOKEN));
}

#[tokio::test]
async fn guesses_over_the_wire_end_after_five_whoever_makes_them() {
    let rome = Rome::open().await;
    rome.give_out(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (own, door) = (Arc::clone(&rome.credentials), rome.endpoint.clone());
    tokio::spawn(listener::serve(listener, own, door, stop.clone()));
    let (mut looked_at, mut turned_away) = (0, 0);
    for _ in 0..10 {
        let own = credentials();
        let connection = connector(&own).connect(&target(address)).await.unwrap();
        for number in 0..20 {
            let mut guess = crate::rig::request(own.identity().cluster_id());
            if number % 2 == 0 {
                guess.token = Some(Token("0".repeat(64)));
            } else {
                guess.token_proof = Some("0".repeat(64));
            }
            match connection.identify(&guess).await {
                Ok(answer) => {
                    assert_eq!(answer.decision, Decision::Refused);
                    looked_at += 1;
                }
                Err(ConnectError::Busy { .. }) => turned_away += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert_eq!((looked_at, turned_away), (5, 195));
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn who_is_in_already_can_try_no_more_tokens_than_others() {
    let rome = Rome::open().await;
    rome.give_out(&[]).await;
    let milan = Visitor::new(1);
    rome.ask(&milan).await;
    rome.decide(json!({"trustMode": "Trusted"})).await;
    let door = rome.door(&milan);
    let shown = async |token: &str| {
        let answer = door.identify(&milan.request(rome.id(), token)).await;
        let answer = answer.unwrap();
        assert_eq!(answer.decision, Decision::Accepted);
        answer.token_proof.is_some()
    };
    for _ in 0..6 {
        assert!(shown(TOKEN).await, "what is right is no guess");
    }
    for number in 0..10 {
        assert!(!shown(&format!("{number:02}{}", &TOKEN[2..])).await);
        let looked_at = shown(TOKEN).await;
        assert_eq!(looked_at, number < 4, "after {} guesses", number + 1);
    }
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(shown(TOKEN).await, "a minute later it is looked at again");
}

#[tokio::test(start_paused = true)]
async fn where_everybody_is_accepted_a_token_cannot_be_guessed_either() {
    let rome = Rome::open().await;
    rome.give_out(&[]).await;
    rome.config
        .send_modify(|config| config.auth_config.allow_empty_token = true);
    let milan = Visitor::new(1);
    let door = rome.door(&milan);
    for number in 0..20 {
        let wrong = format!("{number:02}{}", &TOKEN[2..]);
        let answer = door.identify(&milan.request(rome.id(), &wrong)).await;
        assert_eq!(answer.unwrap().decision, Decision::Accepted);
    }
    let answer = door.identify(&milan.request(rome.id(), TOKEN)).await;
    assert_eq!(answer.unwrap().token_proof, None, "it is not looked at");
}
