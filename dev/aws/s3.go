package aws

import "time"

// s3Operations is the one call by which an attacker, or a test of a cut, probes what a key still reaches.
func s3Operations() map[string]operation {
	return map[string]operation{
		"s3:ListAllMyBuckets": {readOnly: true, target: func(*call) target { return target{resource: "*"} }, run: listBuckets},
		"s3:Other":            {readOnly: true, target: func(*call) target { return target{resource: "*"} }},
	}
}

func listBuckets(c *call) (element, error) {
	list := el("Buckets")
	for _, b := range c.server.buckets {
		list.children = append(list.children, el("Bucket", txt("Name", b.name), txt("CreationDate", b.created.Format(time.RFC3339))))
	}
	return el("ListAllMyBucketsResult", el("Owner", txt("ID", c.server.options.Account), txt("DisplayName", "stand-in")), list), nil
}
