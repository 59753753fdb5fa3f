/*
 * A Vulkan driver in front of Mesa's lavapipe, for tests of WebGPU without a GPU (scripts/lavapipe-driver.js).
 *
 * Dawn wants shaderSampledImageArrayDynamicIndexing and shaderStorageImageArrayDynamicIndexing of every driver; lavapipe of Mesa 22 does not
 * claim them, and compute shaders do not use them. So this claims them, and takes them out again where a device is created. Everything
 * else is lavapipe's. The loader reaches a driver by three functions only, which are at the end.
 */

#define VK_NO_PROTOTYPES
#include <dlfcn.h>
#include <string.h>
#include <vulkan/vulkan.h>

#ifndef LAVAPIPE
#define LAVAPIPE "libvulkan_lvp.so"
#endif
#define EXPORT __attribute__((visibility("default")))

EXPORT VkResult vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version);
EXPORT PFN_vkVoidFunction vk_icdGetInstanceProcAddr(VkInstance instance, const char *name);
EXPORT PFN_vkVoidFunction vk_icdGetPhysicalDeviceProcAddr(VkInstance instance, const char *name);

typedef PFN_vkVoidFunction finder(VkInstance instance, const char *name);

/* Lavapipe's own, as it gave them last: the loader asks before it calls. */
static PFN_vkGetPhysicalDeviceFeatures features_of;
static PFN_vkGetPhysicalDeviceFeatures2 features2_of;
static PFN_vkCreateDevice create_device;

/* dlopen counts, and gives the same library every time; NULL where it is not. */
static PFN_vkVoidFunction own(const char *name) {
    void *library = dlopen(LAVAPIPE, RTLD_NOW | RTLD_LOCAL);
    PFN_vkVoidFunction found = NULL;
    void *symbol = library ? dlsym(library, name) : NULL;
    memcpy(&found, &symbol, sizeof found);
    return found;
}

static void claim(VkPhysicalDeviceFeatures *features, VkBool32 value) {
    features->shaderSampledImageArrayDynamicIndexing = value;
    features->shaderStorageImageArrayDynamicIndexing = value;
}

static VKAPI_ATTR void VKAPI_CALL get_features(VkPhysicalDevice device,
                                               VkPhysicalDeviceFeatures *features) {
    features_of(device, features);
    claim(features, VK_TRUE);
}

static VKAPI_ATTR void VKAPI_CALL get_features2(VkPhysicalDevice device,
                                                VkPhysicalDeviceFeatures2 *features) {
    features2_of(device, features);
    claim(&features->features, VK_TRUE);
}

/* The wanted features are in the structure itself, or in one of its chain; they are the caller's, so they are put back. */
static VKAPI_ATTR VkResult VKAPI_CALL create(VkPhysicalDevice physical,
                                             const VkDeviceCreateInfo *info,
                                             const VkAllocationCallbacks *allocator,
                                             VkDevice *device) {
    VkPhysicalDeviceFeatures *wanted = NULL;
    memcpy(&wanted, &info->pEnabledFeatures, sizeof wanted);
    VkBaseOutStructure *next = NULL;
    memcpy(&next, &info->pNext, sizeof next);
    for (; next; next = next->pNext)
        if (next->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2) {
            wanted = &((VkPhysicalDeviceFeatures2 *)(void *)next)->features;
        }
    VkPhysicalDeviceFeatures before = {0};
    if (wanted) {
        before = *wanted;
        claim(wanted, VK_FALSE);
    }
    VkResult result = create_device(physical, info, allocator, device);
    if (wanted)
        *wanted = before;
    return result;
}

/* What is asked for, or ours in its place. */
static PFN_vkVoidFunction find(finder *theirs, VkInstance instance, const char *name) {
    PFN_vkVoidFunction found = theirs ? theirs(instance, name) : NULL;
    if (!found)
        return NULL;
    if (strcmp(name, "vkGetPhysicalDeviceFeatures") == 0) {
        features_of = (PFN_vkGetPhysicalDeviceFeatures)found;
        return (PFN_vkVoidFunction)get_features;
    }
    if (strcmp(name, "vkGetPhysicalDeviceFeatures2") == 0 ||
        strcmp(name, "vkGetPhysicalDeviceFeatures2KHR") == 0) {
        features2_of = (PFN_vkGetPhysicalDeviceFeatures2)found;
        return (PFN_vkVoidFunction)get_features2;
    }
    if (strcmp(name, "vkCreateDevice") == 0) {
        create_device = (PFN_vkCreateDevice)found;
        return (PFN_vkVoidFunction)create;
    }
    return found;
}

VkResult vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
    VkResult (*theirs)(uint32_t *) =
        (VkResult(*)(uint32_t *))own("vk_icdNegotiateLoaderICDInterfaceVersion");
    return theirs ? theirs(version) : VK_ERROR_INCOMPATIBLE_DRIVER;
}

PFN_vkVoidFunction vk_icdGetInstanceProcAddr(VkInstance instance, const char *name) {
    return find((finder *)own("vk_icdGetInstanceProcAddr"), instance, name);
}

PFN_vkVoidFunction vk_icdGetPhysicalDeviceProcAddr(VkInstance instance, const char *name) {
    return find((finder *)own("vk_icdGetPhysicalDeviceProcAddr"), instance, name);
}
