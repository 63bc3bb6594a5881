/* SPDX-License-Identifier: Apache-2.0 */
/* From a machine to Palacios' XML. Pure: the unit test compares it with golden text. The devices, their order and their
 * words are those of the smallest PC that was seen to run on a real module; order matters there (a bus before who uses
 * it, a front end before what is behind it). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "hypervisor/palacios.h"

#define CMDLINE_MAX                                                                                \
	2047u /* bytes: what an x86 kernel takes (Documentation/arch/x86/boot.rst: cmdline_size) */

/* Ports that a PC's BIOS and kernel touch and nothing here answers. */
static const char *const ignored_ports[][2] = {
	{"0x00", "0x0f"}, /* DMA controllers */
	{"0x81", "0x8f"}, {"0xc0", "0xc7"},
	{"0xd0", "0xde"}, {"0x378", "0x37f"}, /* parallel port */
};

static bool is_plain(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

static void add_escaped(struct buf *out, const char *s)
{
	for (; *s; s++)
		switch (*s) {
		case '&': buf_adds(out, "&amp;"); break;
		case '<': buf_adds(out, "&lt;"); break;
		case '>': buf_adds(out, "&gt;"); break;
		case '"': buf_adds(out, "&quot;"); break;
		default: buf_addc(out, *s);
		}
}

static void add_device(struct buf *out, const char *class, const char *id, const char *inside)
{
	buf_addf(out, "<device class=\"%s\"", class);
	if (id)
		buf_addf(out, " id=\"%s\"", id);
	if (inside)
		buf_addf(out, ">%s</device>\n", inside);
	else
		buf_adds(out, "/>\n");
}

static void add_stream(struct buf *out, const char *stream, unsigned port)
{
	buf_addf(out,
		 "<device class=\"CHAR_STREAM\" id=\"stream-%s\" name=\"%s\">"
		 "<frontend tag=\"serial\" com_port=\"%u\"/></device>\n",
		 stream, stream, port);
}

static void add_disk(struct buf *out, const char *id, const char *path, bool writable, const char *front)
{
	buf_addf(out, "<device class=\"FILEDISK\" id=\"%s\"%s><path>", id,
		 writable ? " writable=\"1\"" : "");
	add_escaped(out, path);
	buf_addf(out, "</path>%s</device>\n", front);
}

static void add_disks(struct buf *out, const struct palacios_machine *m)
{
	static const char virtio[] = "<frontend tag=\"blk\"/>";
	add_disk(out, "boot", m->boot, false,
		 "<frontend tag=\"ide0\"><model>VSE-BOOT</model><type>HD</type><bus_num>0</bus_num>"
		 "<drive_num>0</drive_num></frontend>");
	if (!m->root && !m->scratch)
		return;
	/* The guest names them vda, vdb in this order. */
	add_device(out, "LNX_VIRTIO_BLK", "blk", "<bus>pci0</bus>");
	if (m->root)
		add_disk(out, "root", m->root, false, virtio);
	if (m->scratch)
		add_disk(out, "scratch", m->scratch, true, virtio);
}

static void add_ports(struct buf *out)
{
	buf_adds(out, "<device class=\"GENERIC\" id=\"generic\">");
	for (size_t i = 0; i < ARRAY_SIZE(ignored_ports); i++)
		buf_addf(out, "<ports><start>%s</start><end>%s</end><mode>IGNORE</mode></ports>",
			 ignored_ports[i][0], ignored_ports[i][1]);
	buf_adds(out, "</device>\n");
}

static bool is_tag(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", s[i]))
			return false;
	return n > 0;
}

/* "-device CLASS[,KEY=VALUE]...": id=VALUE is an attribute, every other key an element. */
static int add_extra_device(struct buf *out, const char *word, unsigned number, struct err *err)
{
	_cleanup_free_ char *copy = xstrdup(word), *own_id = xasprintf("extra%u", number);
	_cleanup_buf_ struct buf inside = BUF_INIT;
	char *rest = copy, *class = strsep(&rest, ","), *field;
	const char *id = own_id;
	if (!is_tag(class, strlen(class)) || !is_plain(word))
		return err_set(err, EINVAL,
			       "-device %s: a class of letters, digits, _ and - is expected", word);
	while ((field = strsep(&rest, ","))) {
		char *eq = strchr(field, '=');
		if (!eq || !is_tag(field, (size_t)(eq - field)))
			return err_set(err, EINVAL, "-device %s: '%s' is not KEY=VALUE", word, field);
		*eq = '\0';
		if (strcmp(field, "id") == 0) {
			if (!is_tag(eq + 1, strlen(eq + 1)))
				return err_set(err, EINVAL, "-device %s: bad id", word);
			id = eq + 1;
			continue;
		}
		buf_addf(&inside, "<%s>", field);
		add_escaped(&inside, eq + 1);
		buf_addf(&inside, "</%s>", field);
	}
	add_device(out, class, id, buf_len(&inside) ? buf_cstr(&inside) : NULL);
	return 0;
}

static int read_extra(const struct strvec *words, struct buf *devices, const char **ret_paging,
		      struct err *err)
{
	*ret_paging = "nested";
	for (size_t i = 0; words && i < words->n; i++) {
		const char *word = words->v[i], *value = i + 1 < words->n ? words->v[i + 1] : NULL;
		if (strcmp(word, "-device") != 0 && strcmp(word, "-paging") != 0)
			return err_set(
				err, EINVAL,
				"%s: unknown, allowed are -device CLASS[,KEY=VALUE]... and -paging "
				"nested|shadow",
				word);
		if (!value)
			return err_set(err, EINVAL, "%s: a value is missing", word);
		i++;
		if (strcmp(word, "-device") == 0) {
			if (add_extra_device(devices, value, (unsigned)i, err) < 0)
				return -1;
		} else if (strcmp(value, "nested") == 0 || strcmp(value, "shadow") == 0) {
			*ret_paging = value;
		} else {
			return err_set(err, EINVAL,
				       "-paging %s: unknown, allowed are nested and shadow", value);
		}
	}
	return 0;
}

static int check_machine(const struct palacios_machine *m, struct err *err)
{
	const char *const paths[] = {m->boot, m->root, m->scratch};
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (paths[i] && (paths[i][0] != '/' || !is_plain(paths[i])))
			return err_set(err, EINVAL, "disk %s: an absolute path without control characters is needed",
				       paths[i]);
	if (!m->memory || m->memory % (1u << 20))
		return err_set(err, EINVAL, "memory: whole MiB are needed");
	for (unsigned i = 0; i < m->cpus; i++)
		if (m->target_cpus[i] >= PALACIOS_CPUS_MAX)
			return err_set(err, EINVAL, "CPU %u: Palacios launches on CPUs 0 to %d only",
				       m->target_cpus[i], PALACIOS_CPUS_MAX - 1);
	return m->cpus ? 0 : err_set(err, EINVAL, "no virtual CPU");
}

static void add_system(struct buf *xml, const struct palacios_machine *m, const char *paging)
{
	buf_addf(xml, "<memory alignment=\"4KB\">%" PRIu64 "</memory>\n", m->memory >> 20);
	buf_addf(xml, "<paging mode=\"%s\">", paging);
	if (strcmp(paging, "nested") == 0)
		buf_adds(xml, "<large_pages>true</large_pages></paging>\n");
	else
		buf_adds(xml, "<strategy>VTLB</strategy></paging>\n");
	buf_addf(xml, "<cores count=\"%u\">", m->cpus);
	for (unsigned i = 0; i < m->cpus; i++)
		buf_addf(xml, "<core target_cpu=\"%u\"/>", m->target_cpus[i]);
	buf_adds(xml, "</cores>\n");
}

static void add_chipset(struct buf *xml)
{
	add_device(xml, "BOCHS_DEBUG", "bochs", NULL);
	add_device(xml, "8259A", "pic", NULL);
	add_device(xml, "LAPIC", "apic", NULL);
	add_device(xml, "IOAPIC", "ioapic", "<apic>apic</apic>");
	add_device(xml, "PCI", "pci0", NULL);
	add_device(xml, "i440FX", "northbridge", "<bus>pci0</bus>");
	add_device(xml, "PIIX3", "southbridge", "<bus>pci0</bus>");
	add_device(xml, "MPTABLE", "mptable", NULL);
	add_device(xml, "8254_PIT", "pit", NULL);
	add_device(xml, "KEYBOARD", "keyboard", NULL);
	buf_adds(xml, "<device class=\"CGA_VIDEO\" id=\"cga\" passthrough=\"disable\"/>\n");
	add_device(xml, "CURSES_CONSOLE", "curses", "<frontend tag=\"cga\"/><tty>user</tty>");
	add_device(xml, "SERIAL", "serial", NULL);
	add_stream(xml, PALACIOS_STREAM_CHANNEL, 1);
	add_stream(xml, PALACIOS_STREAM_CONSOLE, 2);
	add_device(xml, "IDE", "ide0", "<bus>pci0</bus><controller>southbridge</controller>");
}

int palacios_config(const struct palacios_machine *m, struct buf *xml, struct err *err)
{
	_cleanup_buf_ struct buf extra = BUF_INIT;
	const char *paging;
	if (check_machine(m, err) < 0 || read_extra(m->extra, &extra, &paging, err) < 0)
		return -1;
	buf_adds(xml, "<vm class=\"PC\">\n");
	add_system(xml, m, paging);
	buf_adds(xml, "<devices>\n");
	add_chipset(xml);
	add_disks(xml, m);
	add_device(xml, "NVRAM", "nvram", "<storage>ide0</storage><bootseq>hd</bootseq>");
	add_ports(xml);
	buf_add(xml, buf_cstr(&extra), buf_len(&extra));
	buf_adds(xml, "</devices>\n</vm>\n");
	return 0;
}

int palacios_cmdline(const char *given, bool trusted, struct buf *out, struct err *err)
{
	/* reboot=t: a triple fault stops the VM. The kernel's own choice, the keyboard controller, would reset it, and a
	 * kernel that panics at boot would boot for ever. The rest: what a timer of a VM may fail, and what takes long and is
	 * of no use (self tests, the search for a mouse). */
	buf_adds(out, "console=ttyS1,115200 quiet panic=-1 reboot=t vse.ch=ttyS0 no_timer_check "
		      "cryptomgr.notests "
		      "i8042.noaux i8042.nokbd");
	if (trusted)
		buf_adds(out, " mitigations=off init_on_alloc=0");
	if (given && given[0])
		buf_addf(out, " %s", given);
	if (!is_plain(buf_cstr(out)))
		return err_set(err, EINVAL, "kernel command line: it has a control character");
	if (buf_len(out) > CMDLINE_MAX)
		return err_set(err, EINVAL, "kernel command line: %zu bytes, at most %u are possible",
			       buf_len(out), CMDLINE_MAX);
	return 0;
}
