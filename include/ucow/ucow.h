/* SPDX-License-Identifier: MIT */
/* Everything that ucow offers to programs. */
#ifndef UCOW_H
#define UCOW_H

#include <ucow/access.h>
#include <ucow/debug.h>
#include <ucow/diff.h>
#include <ucow/file.h>
#include <ucow/gup.h>
#include <ucow/ksm.h>
#include <ucow/machine.h>
#include <ucow/memcg.h>
#include <ucow/mm.h>
#include <ucow/notifier.h>
#include <ucow/pagemap.h>
#include <ucow/snapshot.h>
#include <ucow/swap.h>
#include <ucow/types.h>
#include <ucow/uffd.h>

#endif
