/* SPDX-License-Identifier: MIT */
/*
 * Changing stacks: the registers that a function call keeps are pushed, the stack pointer is exchanged, and they are
 * popped from the other stack. (swapcontext would make a system call for the signal mask each time.)
 */
#include "explore_fibre.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucow/types.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#error "explore_fibre.c: no way to change stacks on this processor"
#endif

void fibre_swap(void **save, void *load);
void fibre_enter(void);

#if defined(__x86_64__)
#define SAVED_WORDS 9 /* six registers, the address to return to, two words so that calls find the stack aligned */
__asm__(".text\n"
	".globl fibre_swap\n"
	".hidden fibre_swap\n"
	".type fibre_swap, @function\n"
	"fibre_swap:\n"
	"	pushq %rbx\n"
	"	pushq %rbp\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbp\n"
	"	popq %rbx\n"
	"	ret\n"
	".size fibre_swap, . - fibre_swap\n"
	".globl fibre_enter\n"
	".hidden fibre_enter\n"
	".type fibre_enter, @function\n"
	"fibre_enter:\n"
	"	movq %r12, %rdi\n"
	"	callq *%r13\n"
	"	ud2\n"
	".size fibre_enter, . - fibre_enter\n");

static void **saved_registers(char *end, void (*entry)(void *), void *arg)
{
	void **saved = (void **)(void *)end - SAVED_WORDS;

	saved[2] = (void *)(uintptr_t)entry;       /* r13 */
	saved[3] = arg;                            /* r12 */
	saved[6] = (void *)(uintptr_t)fibre_enter; /* where the swap returns to */
	return saved;
}
#else
#define SAVED_WORDS 20 /* x19 to x30, d8 to d15 */
__asm__(".text\n"
	".globl fibre_swap\n"
	".hidden fibre_swap\n"
	".type fibre_swap, %function\n"
	"fibre_swap:\n"
	"	stp x19, x20, [sp, #-160]!\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	ldp x19, x20, [sp], #160\n"
	"	ret\n"
	".size fibre_swap, . - fibre_swap\n"
	".globl fibre_enter\n"
	".hidden fibre_enter\n"
	".type fibre_enter, %function\n"
	"fibre_enter:\n"
	"	mov x0, x19\n"
	"	blr x20\n"
	"	brk #1\n"
	".size fibre_enter, . - fibre_enter\n");

static void **saved_registers(char *end, void (*entry)(void *), void *arg)
{
	void **saved = (void **)(void *)end - SAVED_WORDS;

	saved[0] = arg;                             /* x19 */
	saved[1] = (void *)(uintptr_t)entry;        /* x20 */
	saved[11] = (void *)(uintptr_t)fibre_enter; /* x30 */
	return saved;
}
#endif

int fibre_create(struct fibre *fibre, size_t nbytes)
{
	char *area = mmap(NULL, nbytes + UCOW_PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*fibre = (struct fibre){0};
	if (area == MAP_FAILED)
		return -ENOMEM;
	if (mprotect(area, UCOW_PAGE_SIZE, PROT_NONE)) {
		munmap(area, nbytes + UCOW_PAGE_SIZE);
		return -ENOMEM;
	}
	fibre->stack = area + UCOW_PAGE_SIZE;
	fibre->nbytes = nbytes;
	return 0;
}

void fibre_destroy(struct fibre *fibre)
{
	if (fibre->stack)
		munmap(fibre->stack - UCOW_PAGE_SIZE, fibre->nbytes + UCOW_PAGE_SIZE);
	*fibre = (struct fibre){0};
}

void fibre_prepare(struct fibre *fibre, void (*entry)(void *arg), void *arg)
{
	void **saved = saved_registers(fibre->stack + fibre->nbytes, entry, arg);

	fibre->top = saved;
}

void fibre_wipe(struct fibre *fibre, size_t nbytes)
{
	char *top = fibre->top;
	size_t room = (size_t)(top - fibre->stack);

	if (nbytes > room)
		nbytes = room;
	memset(top - nbytes, 0, nbytes);
}

void fibre_change(struct fibre *from, struct fibre *to)
{
	fibre_swap(&from->top, to->top);
}
