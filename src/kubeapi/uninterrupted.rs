//! What is carried through even if nobody waits for it any more: a client that hangs up must not
//! leave half a deletion behind.

use futures::{FutureExt, future::BoxFuture};
use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::runtime::Handle;

/// Work that goes on as a task of its own when it is dropped before its end. Until then it runs where
/// it is waited for, which spares each write a way between two threads.
pub(super) struct Uninterrupted<T: Send + 'static>(Option<BoxFuture<'static, Result<T, String>>>);

impl<T: Send + 'static> Uninterrupted<T> {
    /// Takes over the work; its outcome is what it said if it panicked.
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        let outcome = AssertUnwindSafe(work).catch_unwind();
        let told = outcome.map(|outcome| outcome.map_err(|panic| message(panic.as_ref())));
        Self(Some(told.boxed()))
    }
}

/// What a panic said, which is a text unless somebody went out of their way.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_default()
}

impl<T: Send + 'static> Future for Uninterrupted<T> {
    type Output = Result<T, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else {
            return Poll::Pending;
        };
        let outcome = work.as_mut().poll(context);
        if outcome.is_ready() {
            self.0 = None;
        }
        outcome
    }
}

impl<T: Send + 'static> Drop for Uninterrupted<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            drop(runtime.spawn(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_done_all_the_same() {
        let (go, gone) = oneshot::channel();
        let (done, finished) = oneshot::channel();
        let mut work = Uninterrupted::new(async move {
            gone.await.unwrap();
            done.send("done").unwrap();
        });
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        go.send(()).unwrap();
        assert_eq!(finished.await, Ok("done"));
    }

    #[tokio::test]
    async fn a_panic_is_an_outcome() {
        assert_eq!(Uninterrupted::new(async { 1 }).await.unwrap(), 1);
        let broken = Uninterrupted::new(async { panic!("on purpose") });
        assert_eq!(broken.await.unwrap_err(), "on purpose");
        let broken = Uninterrupted::new(async { panic!("{} on purpose", 2) });
        assert_eq!(broken.await.unwrap_err(), "2 on purpose");
    }
}
