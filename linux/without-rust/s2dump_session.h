/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * s2dump at EL1 in a kernel without Rust: the border between the device, which
 * is C, and the logic of its sessions, which is an object that rustc made.
 */
#ifndef __ARM64_KVM_S2DUMP_SESSION_H
#define __ARM64_KVM_S2DUMP_SESSION_H

#include <linux/types.h>

struct iov_iter;
struct s2dump_el1_vm;
struct s2dump_file;

/* Slots of an open file's ring: SLOTS of host-driver/src/file.rs. */
#define S2DUMP_SLOTS		8

/* Room for what Rust keeps of a session; Rust asserts that it fits. */
#define S2DUMP_SESSION_BYTES	256

/*
 * Rust. But for the first, each is called with the lock of the file held.
 *
 * s2dump_session_hello() asks EL2 for its version, and needs no session.
 */
int s2dump_session_hello(u32 *version);
void s2dump_session_init(u64 *session, u32 slots);
int s2dump_session_ioctl(u64 *session, struct s2dump_file *file, u32 command, u64 argument);
ssize_t s2dump_session_read(u64 *session, struct s2dump_file *file, struct iov_iter *to);

/* C, called from Rust with the lock of the file held. A slot may be any number. */
u64 s2dump_device_slot_pfn(struct s2dump_file *file, u32 slot);
u8 *s2dump_device_slot(struct s2dump_file *file, u32 slot);
int s2dump_device_share_all(struct s2dump_file *file, u32 slot);
int s2dump_device_look_at_vms(struct s2dump_file *file);
void s2dump_device_look_at_handles(struct s2dump_file *file);
int s2dump_device_hold_vm(struct s2dump_file *file, u16 handle);
void s2dump_device_let_vms_go(struct s2dump_file *file);
const struct s2dump_el1_vm *s2dump_device_vms(struct s2dump_file *file, u32 *count);
int s2dump_device_memory_slots(struct s2dump_file *file, u32 slot, u32 offset, u64 from, u32 max);
bool s2dump_device_is_interrupted(void);
int s2dump_device_from_user(void *to, u64 from, size_t len);
int s2dump_device_to_user(u64 to, const void *from, size_t len);
size_t s2dump_device_room(const struct iov_iter *to);
size_t s2dump_device_put(struct iov_iter *to, const void *from, size_t len);

#endif /* __ARM64_KVM_S2DUMP_SESSION_H */
