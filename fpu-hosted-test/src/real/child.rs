//! A child process that does not outlive its owner.

use std::{ffi::c_int, io, ptr};

/// Killed and waited for when it is dropped, unless it has ended before: its number may be another process's then.
#[derive(Debug)]
pub(super) struct Child {
    number: libc::pid_t,
    ended: bool,
}

impl Child {
    /// A child of this process, which nobody else waits for.
    pub(super) fn of(number: libc::pid_t) -> Self {
        Self { number, ended: false }
    }

    pub(super) fn number(&self) -> libc::pid_t {
        self.number
    }

    /// Waits until it has ended or stopped; its status.
    pub(super) fn wait(&mut self, options: c_int) -> io::Result<c_int> {
        let mut status = 0;
        // SAFETY: our child; the status is a local.
        if unsafe { libc::waitpid(self.number, &mut status, options) } != self.number {
            return Err(io::Error::last_os_error());
        }
        self.ended = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: our child, which has not been waited for, so the number is its own.
            unsafe {
                libc::kill(self.number, libc::SIGKILL);
                libc::waitpid(self.number, ptr::null_mut(), 0);
            }
        }
    }
}
