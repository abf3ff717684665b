package slack

import "strings"

// The shapes and limits below are those of docs.slack.dev/reference/block-kit. Blocks and elements that the page cannot show are
// "unsupported type", which a real workspace may take: the stand-in refuses too much rather than too little.

func messageBlock() check { return block(displayBlocks()) }

func viewBlock() check {
	shapes := displayBlocks()
	shapes["input"] = blockObject(map[string]field{
		"label": must(plain(2000)), "hint": may(plain(2000)), "optional": may(boolean), "dispatch_action": may(boolean),
		"element": must(oneOf(pick("plain_text_input", "static_select", "radio_buttons", "checkboxes"))),
	})
	return block(shapes)
}

// block picks a block's shape and wants its block_id to be the only one of its name.
func block(shapes map[string]check) check {
	shape := oneOf(shapes)
	return func(v *validation, at string, value any) {
		shape(v, at, value)
		o, _ := value.(map[string]any)
		if o["type"] == "input" {
			v.hasInput = true
		}
		if id, _ := o["block_id"].(string); id != "" {
			if v.blockIDs[id] {
				v.bad(at+"/block_id", "`block_id` %q already exists", id)
			}
			v.blockIDs[id] = true
		}
		seen := map[string]bool{}
		for _, e := range elements(o) {
			id, _ := e["action_id"].(string)
			if id != "" && seen[id] {
				v.bad(at, "`action_id` %q already exists", id)
			}
			seen[id] = true
		}
	}
}

func blockObject(fields map[string]field) check {
	fields["block_id"] = may(str(0, 255))
	return object(fields)
}

func displayBlocks() map[string]check {
	inContext := map[string]check{"image": image(nil)}
	for _, kind := range []string{"plain_text", "mrkdwn"} {
		inContext[kind] = text(2000)
	}
	return map[string]check{
		"header":  blockObject(map[string]field{"text": must(plain(150))}),
		"divider": blockObject(map[string]field{}),
		"context": blockObject(map[string]field{"elements": must(list(1, 10, oneOf(inContext)))}),
		"section": section(),
		"actions": blockObject(map[string]field{"elements": must(list(1, 25,
			oneOf(pick("button", "static_select", "radio_buttons", "checkboxes", "overflow"))))}),
		"image":     image(map[string]field{"block_id": may(str(0, 255)), "title": may(plain(2000))}),
		"rich_text": blockObject(map[string]field{"elements": must(list(1, 100, richPart()))}),
	}
}

func section() check {
	accessory := pick("button", "static_select", "radio_buttons", "checkboxes", "overflow")
	accessory["image"] = image(nil)
	shape := blockObject(map[string]field{
		"text": may(text(3000)), "fields": may(list(1, 10, text(2000))), "accessory": may(oneOf(accessory)), "expand": may(boolean),
	})
	return func(v *validation, at string, value any) {
		shape(v, at, value)
		if o, ok := value.(map[string]any); ok && o["text"] == nil && o["fields"] == nil {
			v.bad(at, "must define either `text` or `fields`")
		}
	}
}

// image is a block or an element: by address, or by the id of a file that the app uploaded.
func image(more map[string]field) check {
	fields := map[string]field{
		"alt_text": must(str(1, 2000)), "image_url": may(str(1, 3000)),
		"slack_file": may(object(map[string]field{"id": may(str(1, 255)), "url": may(str(1, 3000))})),
	}
	for name, f := range more {
		fields[name] = f
	}
	shape := object(fields)
	return func(v *validation, at string, value any) {
		shape(v, at, value)
		o, _ := value.(map[string]any)
		file, isFile := o["slack_file"].(map[string]any)
		if (o["image_url"] != nil) == isFile {
			v.bad(at, "must define either `image_url` or `slack_file`")
		}
		if url, _ := o["image_url"].(string); url != "" && !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
			v.bad(at+"/image_url", "must be a valid URL")
		}
		if id, _ := file["id"].(string); isFile && !v.imageFile(id) {
			v.bad(at+"/slack_file", "invalid slack file")
		}
	}
}

func pick(kinds ...string) map[string]check {
	out := map[string]check{}
	for _, kind := range kinds {
		out[kind] = element(kind)
	}
	return out
}

func element(kind string) check {
	fields := map[string]field{"action_id": may(str(0, 255))}
	switch kind {
	case "button":
		fields["text"] = must(plain(75))
		fields["value"] = may(str(0, 2000))
		fields["url"] = may(str(0, 3000))
		fields["style"] = may(choice("primary", "danger"))
		fields["confirm"] = may(confirm())
		fields["accessibility_label"] = may(str(0, 75))
	case "plain_text_input":
		fields["placeholder"] = may(plain(150))
		fields["initial_value"] = may(str(0, 3000))
		fields["multiline"] = may(boolean)
		fields["min_length"] = may(number)
		fields["max_length"] = may(number)
		fields["focus_on_load"] = may(boolean)
		fields["dispatch_action_config"] = may(anything)
	case "static_select":
		fields["placeholder"] = may(plain(150))
		fields["options"] = must(list(1, 100, option(75)))
		fields["initial_option"] = may(option(75))
		fields["confirm"] = may(confirm())
		fields["focus_on_load"] = may(boolean)
	case "radio_buttons":
		fields["options"] = must(list(1, 10, option(75)))
		fields["initial_option"] = may(option(75))
		fields["confirm"] = may(confirm())
		fields["focus_on_load"] = may(boolean)
	case "checkboxes":
		fields["options"] = must(list(1, 10, option(75)))
		fields["initial_options"] = may(list(1, 10, option(75)))
		fields["confirm"] = may(confirm())
		fields["focus_on_load"] = may(boolean)
	case "overflow":
		fields["options"] = must(list(1, 5, option(75)))
		fields["confirm"] = may(confirm())
	}
	return object(fields)
}

func anything(*validation, string, any) {}

func option(most int) check {
	return object(map[string]field{
		"text": must(text(most)), "value": must(str(1, 150)), "description": may(text(most)), "url": may(str(0, 3000)),
	})
}

func confirm() check {
	return object(map[string]field{
		"title": must(plain(100)), "text": must(text(300)), "confirm": must(plain(30)), "deny": must(plain(30)),
		"style": may(choice("primary", "danger")),
	})
}

// richPart is one element of a rich_text block. Its leaves are text, never markup: the safest way to show an attacker's words.
func richPart() check {
	styles := may(object(map[string]field{"bold": may(boolean), "italic": may(boolean), "strike": may(boolean), "code": may(boolean)}))
	leaf := oneOf(map[string]check{
		"text":      object(map[string]field{"text": must(counted(1, 3000)), "style": styles}),
		"link":      object(map[string]field{"url": must(str(1, 3000)), "text": may(counted(1, 3000)), "unsafe": may(boolean), "style": styles}),
		"user":      object(map[string]field{"user_id": must(str(1, 255)), "style": styles}),
		"usergroup": object(map[string]field{"usergroup_id": must(str(1, 255)), "style": styles}),
		"channel":   object(map[string]field{"channel_id": must(str(1, 255)), "style": styles}),
		"broadcast": object(map[string]field{"range": must(choice("here", "channel", "everyone"))}),
		"emoji":     object(map[string]field{"name": must(str(1, 255)), "unicode": may(str(0, 255)), "style": styles}),
	})
	leaves := must(list(1, 500, leaf))
	plainSection := object(map[string]field{"elements": leaves})
	bordered := object(map[string]field{"elements": leaves, "border": may(number)})
	return oneOf(map[string]check{
		"rich_text_section":      plainSection,
		"rich_text_preformatted": bordered,
		"rich_text_quote":        bordered,
		"rich_text_list": object(map[string]field{
			"elements": must(list(1, 100, oneOf(map[string]check{"rich_text_section": plainSection}))),
			"style":    must(choice("bullet", "ordered")), "indent": may(number), "offset": may(number), "border": may(number),
		}),
	})
}
