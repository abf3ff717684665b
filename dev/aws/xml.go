package aws

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"time"
)

// element is one XML element; the answers are small and regular enough to be written as a tree.
type element struct {
	name     string
	text     string
	children []element
}

func el(name string, children ...element) element { return element{name: name, children: children} }

func txt(name, text string) element { return element{name: name, text: text} }

func when(name string, t time.Time) element { return txt(name, t.UTC().Format(time.RFC3339)) }

// policyText is a policy document in IAM's answers: percent-encoded after RFC 3986.
func policyText(name, raw string) element {
	return txt(name, string(bytes.ReplaceAll([]byte(url.QueryEscape(raw)), []byte("+"), []byte("%20"))))
}

// members is a list as the Query protocol writes it.
func members(name string, items ...element) element {
	for i := range items {
		items[i].name = "member"
	}
	return el(name, items...)
}

func texts(name string, items []string) element {
	var list []element
	for _, item := range items {
		list = append(list, txt("", item))
	}
	return members(name, list...)
}

func tagList(tags map[string]string) element {
	keys := make([]string, 0, len(tags))
	for key := range tags {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	var list []element
	for _, key := range keys {
		list = append(list, el("", txt("Key", key), txt("Value", tags[key])))
	}
	return members("Tags", list...)
}

// namespaces are the XML name spaces of the Query services.
var namespaces = map[string]string{
	"iam": "https://iam.amazonaws.com/doc/2010-05-08/",
	"sts": "https://sts.amazonaws.com/doc/2011-06-15/",
	"s3":  "http://s3.amazonaws.com/doc/2006-03-01/",
}

func render(namespace string, root element) []byte {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	root.write(&b, namespace)
	return b.Bytes()
}

func (e element) write(b *bytes.Buffer, namespace string) {
	b.WriteString("<" + e.name)
	if namespace != "" {
		b.WriteString(` xmlns="` + namespace + `"`)
	}
	b.WriteString(">")
	_ = xml.EscapeText(b, []byte(e.text)) // a bytes.Buffer takes everything
	for _, child := range e.children {
		child.write(b, "")
	}
	b.WriteString("</" + e.name + ">")
}

// queryList reads name.member.1, name.member.2 and so on; with a field, name.member.1.field.
func queryList(form url.Values, name, field string) []string {
	var out []string
	for i := 1; i <= maxMembers; i++ {
		key := name + ".member." + strconv.Itoa(i)
		if field != "" {
			key += "." + field
		}
		values, ok := form[key]
		if !ok {
			break
		}
		out = append(out, values[0])
	}
	return out
}

// maxMembers bounds a list parameter.
const maxMembers = 1000

func queryTags(form url.Values, name string) (map[string]string, error) {
	keys, values := queryList(form, name, "Key"), queryList(form, name, "Value")
	if len(keys) != len(values) {
		return nil, invalid("%s: every tag needs a Key and a Value", name)
	}
	tags := map[string]string{}
	for i, key := range keys {
		if _, twice := tags[key]; twice {
			return nil, fail(400, "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		tags[key] = values[i]
	}
	return tags, nil
}

// page cuts one page out of a list by MaxItems and Marker, and says how to go on.
func page[T any](c *call, items []T) ([]T, []element, error) {
	size, start := 100, 0
	var err error
	if text := c.form.Get("MaxItems"); text != "" {
		if size, err = strconv.Atoi(text); err != nil || size < 1 || size > 1000 {
			return nil, nil, invalid("1 validation error detected: Value '%s' at 'maxItems' failed to satisfy constraint: Member must have value between 1 and 1000", text)
		}
	}
	if text := c.form.Get("Marker"); text != "" {
		if _, err := fmt.Sscanf(text, "marker-%d", &start); err != nil || start < 0 || start > len(items) {
			return nil, nil, invalid("Invalid Marker.")
		}
	}
	end := min(start+size, len(items))
	if end == len(items) {
		return items[start:end], []element{txt("IsTruncated", "false")}, nil
	}
	return items[start:end], []element{txt("IsTruncated", "true"), txt("Marker", fmt.Sprintf("marker-%d", end))}, nil
}
