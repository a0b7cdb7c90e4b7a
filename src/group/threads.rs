//! Threads of one process as a group.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::{Error, Result};
use crate::group::Group;

enum Message {
    Values(Vec<f32>),
    Bytes(Vec<u8>),
}

/// One thread of a group. Dropping it leaves the group, which is an error for those that still wait for it.
pub struct Thread {
    rank: usize,
    /// To each of them.
    to: Vec<Sender<Message>>,
    /// From each of them.
    from: Vec<Mutex<Receiver<Message>>>,
}

/// A group of `size` threads: one member for each of them.
pub fn threads(size: usize) -> Vec<Thread> {
    let mut members: Vec<Thread> = (0..size).map(|rank| Thread { rank, to: Vec::new(), from: Vec::new() }).collect();
    for sender in 0..size {
        for receiver in 0..size {
            let (to, from) = channel();
            members[sender].to.push(to);
            members[receiver].from.push(Mutex::new(from));
        }
    }
    members
}

impl Thread {
    fn send(&self, to: usize, message: Message) -> Result<()> {
        self.to[to].send(message).map_err(|_| self.left(to))
    }

    fn receive(&self, from: usize) -> Result<Message> {
        // One that panicked while it received has left.
        let received = self.from[from].lock().ok().and_then(|from| from.recv().ok());
        received.ok_or_else(|| self.left(from))
    }

    fn left(&self, rank: usize) -> Error {
        Error::new(format!("process {rank} of {} has ended before the others", self.to.len()))
            .with_hint("its own error is above; what was saved is intact, continue with --resume")
    }

    fn out_of_step(&self) -> Error {
        Error::new(format!("process {} is not in step with the others", self.rank))
    }
}

impl Group for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, values: &[f32], bounds: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        for (to, part) in bounds.windows(2).enumerate() {
            self.send(to, Message::Values(values[part[0]..part[1]].to_vec()))?;
        }
        let (mut received, mut bounds) = (Vec::new(), vec![0]);
        for from in 0..self.size() {
            match self.receive(from)? {
                Message::Values(values) => received.extend(values),
                Message::Bytes(_) => return Err(self.out_of_step()),
            }
            bounds.push(received.len());
        }
        Ok((received, bounds))
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        for to in 0..self.size() {
            self.send(to, Message::Bytes(own.to_vec()))?;
        }
        let bytes = |from| match self.receive(from)? {
            Message::Bytes(bytes) => Ok(bytes),
            Message::Values(_) => Err(self.out_of_step()),
        };
        (0..self.size()).map(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_is_named_and_nobody_waits_for_it() {
        let mut members = threads(3);
        drop(members.remove(1));
        let texts: Vec<String> = std::thread::scope(|scope| {
            let waiting: Vec<_> = members.into_iter().map(|one| scope.spawn(move || one.barrier())).collect();
            waiting.into_iter().map(|one| one.join().unwrap().unwrap_err().to_string()).collect()
        });
        assert_eq!(texts[0], "process 1 of 3 has ended before the others");
        assert!(texts[1].contains("has ended before"), "{}", texts[1]);
    }

    #[test]
    fn different_questions_are_an_error() {
        let [first, second] = <[Thread; 2]>::try_from(threads(2)).ok().unwrap();
        std::thread::scope(|scope| {
            let exchange = scope.spawn(move || first.exchange(&[1.0; 2], &[0, 1, 2]).map(drop));
            let gather = scope.spawn(move || second.gather(&[1]).map(drop));
            assert!(gather.join().unwrap().is_err() || exchange.join().unwrap().is_err());
        });
    }
}
