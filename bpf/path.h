/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The path of an open file, walked from its dentry up through its mounts: what symbolic links and .. cannot disguise. */
#ifndef TOURNIQUET_PATH_H
#define TOURNIQUET_PATH_H

#define PATH_LEN 512      /* where the next component no longer begins */
#define COMPONENT_LEN 128 /* longer ones are cut */
#define PATH_STEPS 28     /* components and mounts crossed */
#define PATH_ROOM (PATH_LEN + COMPONENT_LEN)

#define OVERLAYFS_MAGIC 0x794c7630

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/*
 * write_path_of writes the components into out, the last one first, and their length (<= PATH_ROOM) into *len. The length
 * lives in the map, not in a register: read back from there it is any number to the verifier, so that all rounds of the
 * loop look alike to it and it walks each only once.
 */
static __always_inline void write_path_of(u8 *out, volatile u16 *len, struct dentry *dentry, struct vfsmount *mnt, u16 *flags)
{
	struct mount *mount = mount_of(mnt);

	*len = 0;
	for (int i = 0; i < PATH_STEPS; i++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		u32 off = *len;
		long n;

		if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
			struct mount *above = BPF_CORE_READ(mount, mnt_parent);

			if (above == mount)
				return;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = above;
			continue;
		}
		if (off >= PATH_LEN)
			break;
		n = bpf_probe_read_kernel_str(out + off, COMPONENT_LEN, BPF_CORE_READ(dentry, d_name.name));
		if (n <= 0)
			break;
		if (n == COMPONENT_LEN)
			*flags |= FLAG_PATH_CUT;
		*len = off + n;
		if (dentry == parent) { /* a memfd, or what lies under a mount that was taken away */
			*flags |= FLAG_DETACHED;
			return;
		}
		dentry = parent;
	}
	*flags |= FLAG_PATH_CUT;
}

static __always_inline void write_path(u8 *out, volatile u16 *len, struct file *file, u16 *flags)
{
	write_path_of(out, len, BPF_CORE_READ(file, f_path.dentry), BPF_CORE_READ(file, f_path.mnt), flags);
}

/* in_upper_layer says whether a file of an overlay was written after the image was made. */
static __always_inline bool in_upper_layer(struct inode *inode)
{
	struct ovl_inode *overlay;

	if (!bpf_core_type_exists(struct ovl_inode))
		return false;
	if (BPF_CORE_READ(inode, i_sb, s_magic) != OVERLAYFS_MAGIC)
		return false;
	overlay = (void *)inode - bpf_core_field_offset(struct ovl_inode, vfs_inode);
	return BPF_CORE_READ(overlay, __upperdentry) != NULL;
}

/* file_at returns the file behind a descriptor of the task, or NULL. */
static __always_inline struct file *file_at(struct task_struct *task, u32 fd)
{
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slots, *file = NULL;

	if (!table || fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	slots = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	return file;
}

/* match_name returns the bits that user space gave for a name, or 0. */
static __always_inline u32 match_name(u32 what, const void *name)
{
	struct name_key key = {.what = what};
	u32 *bits;

	bpf_probe_read_kernel_str(key.name, NAME_LEN, name);
	bits = bpf_map_lookup_elem(&names, &key);
	return bits ? *bits : 0;
}

#endif
