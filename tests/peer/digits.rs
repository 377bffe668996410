//! The six digits that people compare: how often a visitor may begin the exchange that leads to them.

use std::time::Duration;

use landbridge::{
    api::wire::{Decision, IdentityAnswer, IdentityRequest},
    peer::{approval::Nonce, auth::Reception as _},
};

use crate::front_desk::{Rome, TOKEN, Visitor};

#[tokio::test(start_paused = true)]
async fn who_breaks_off_and_begins_anew_is_given_few_nonces() {
    let rome = Rome::open().await;
    let eve = Visitor::new(1);
    let mut given = 0;
    for _ in 0..1000 {
        let answer = begin(&rome, &eve, Nonce::generate().unwrap()).await;
        assert_eq!(answer.decision, Decision::Waiting);
        given += usize::from(answer.nonce.is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!((8..12).contains(&given), "{given} nonces");
}

#[tokio::test(start_paused = true)]
async fn who_lost_its_connection_in_between_is_not_kept_waiting() {
    let rome = Rome::open().await;
    let milan = Visitor::new(1);
    for _ in 0..2 {
        let broken_off = begin(&rome, &milan, Nonce::generate().unwrap()).await;
        assert!(broken_off.nonce.is_some());
    }
    let nonce = Nonce::generate().unwrap();
    assert!(begin(&rome, &milan, nonce).await.nonce.is_some());
    let revealed = IdentityRequest {
        nonce: Some(nonce.to_text()),
        ..request(&rome, &milan)
    };
    let answer = rome
        .desk
        .identify(&milan.session(), revealed)
        .await
        .unwrap();
    assert_eq!((answer.decision, answer.nonce), (Decision::Waiting, None));
}

async fn begin(rome: &Rome, visitor: &Visitor, nonce: Nonce) -> IdentityAnswer {
    let committed = IdentityRequest {
        commitment: Some(nonce.commitment()),
        ..request(rome, visitor)
    };
    rome.desk
        .identify(&visitor.session(), committed)
        .await
        .unwrap()
}

fn request(rome: &Rome, visitor: &Visitor) -> IdentityRequest {
    IdentityRequest {
        token_proof: None,
        ..visitor.request(rome.id(), TOKEN)
    }
}
