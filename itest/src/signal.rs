// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that are interrupted by signals in whatever they do.

// UNSAFETY: signals to threads, which std does not have.
#![expect(unsafe_code, reason = "signals")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// `SIGUSR1`.
const SIGNAL: i32 = 10;

extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn pthread_self() -> usize;
    fn pthread_kill(thread: usize, number: i32) -> i32;
}

/// Does nothing: that a signal waits, or came, is what interrupts a system call.
extern "C" fn handler(_: i32) {}

/// The threads that may be interrupted: each is alive while it is in here.
#[derive(Default)]
struct Living(Mutex<Vec<usize>>);

/// Takes its thread out of the living when dropped, be it by a panic.
struct Life<'a> {
    living: &'a Living,
    thread: usize,
}

impl Living {
    fn with<R>(&self, work: impl FnOnce(&mut Vec<usize>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add_this_thread(&self) -> Life<'_> {
        // SAFETY: has no obligation.
        let thread = unsafe { pthread_self() };
        self.with(|threads| threads.push(thread));
        Life { living: self, thread }
    }

    /// Sends the signal to the `number`th thread, counted around; returns whether there was one to take it.
    fn interrupt(&self, number: usize) -> bool {
        self.with(|threads| {
            let thread = threads.get(number % threads.len().max(1));
            // SAFETY:
            // - The thread is alive: it is in the list, which it leaves, under this lock, before it ends.
            thread.is_some_and(|thread| unsafe { pthread_kill(*thread, SIGNAL) } == 0)
        })
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.living.with(|threads| threads.retain(|thread| *thread != self.thread));
    }
}

/// Runs each of `workers` in a thread, interrupts one after the other by a signal, with `pause` in between, until all have
/// ended, and returns what they returned and how many signals were sent.
///
/// # Panics
///
/// If one of them does.
pub fn run_interrupted<R: Send>(workers: Vec<impl FnOnce() -> R + Send>, pause: Duration) -> (Vec<R>, u32) {
    // SAFETY: the handler touches nothing, so it may run at any moment.
    unsafe { signal(SIGNAL, handler) };
    let living = Living::default();
    let living = &living;
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                scope.spawn(move || {
                    let _life = living.add_this_thread();
                    worker()
                })
            })
            .collect();
        let mut sent = 0;
        for number in 0.. {
            if threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                break;
            }
            sent += u32::from(living.interrupt(number));
            std::thread::sleep(pause);
        }
        let results = threads.into_iter().map(|thread| thread.join().expect("a worker does not panic"));
        (results.collect(), sent)
    })
}

#[cfg(test)]
mod tests {
    use super::run_interrupted;
    use std::time::{Duration, Instant};

    #[test]
    fn workers_are_interrupted_and_end() {
        let work = |number: u32| {
            move || {
                // Sleeps on after a signal; only that the signal does no harm can be seen.
                let begin = Instant::now();
                std::thread::sleep(Duration::from_millis(20));
                (number, begin.elapsed() >= Duration::from_millis(20))
            }
        };
        let (results, sent) = run_interrupted(vec![work(1), work(2)], Duration::from_millis(1));
        assert_eq!(results, [(1, true), (2, true)]);
        assert!(sent > 0);
        assert_eq!(run_interrupted(Vec::<fn()>::new(), Duration::ZERO), (vec![], 0));
    }
}
